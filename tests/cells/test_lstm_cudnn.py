"""The LSTM by cuDNN: its weights, what is refused; on a GPU cuDNN itself, elsewhere a stand-in. "auto" is the scan."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from jax.experimental import rnn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from qlstm_jax import linen
from qlstm_jax.cells import common, lstm
from qlstm_jax.cells.lstm import cudnn
from qlstm_jax.nnx import LSTM
from tests.cells import cases, lstm_stand_in

B, T, D, H = 4, 7, cases.D, cases.H
LENGTHS = jnp.array([7, 0, 4, 1])
CASE = next(case for case in cases.CASES if case.cell is lstm)
on_gpu = pytest.mark.skipif(not cudnn.has_gpu(), reason="JAX sees no NVIDIA GPU")
without_gpu = pytest.mark.skipif(cudnn.has_gpu(), reason="JAX sees an NVIDIA GPU")


def params(implementation, **options):
    return dataclasses.replace(CASE.params(**options), implementation=implementation)


def drawn_carry():
    return lstm.Carry(*(cases.sequence(B, H, seed=seed)[..., 0] for seed in (5, 6)))


def loss(params, xs, carry, lengths=LENGTHS):
    """Of all outputs."""
    end, ys = lstm.unroll(params, xs, carry=carry, seq_lengths=lengths)
    return jnp.sum(jnp.sin(ys)) + jnp.sum(end.c * jnp.cos(end.h))


def gradients(params, xs, carry, lengths=LENGTHS):
    return jax.grad(loss, argnums=(0, 1, 2))(params, xs, carry, lengths)


def close(found, expected, atol=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_weights_lie_where_cudnn_has_them():
    p = params("cudnn")
    flat = cudnn.flat_weights(p)
    assert flat.shape == (rnn.get_num_params_in_lstm(D, H, 1, False),)
    found = [arrays[0] for arrays in rnn.unpack_lstm_weights(flat, D, H, 1, False)]
    for a, b in zip(found, (p.input_kernel.T, p.recurrent_kernel.T, p.bias, jnp.zeros(4 * H)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_the_weights_come_back_in_place_and_dtype():
    p = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params("cudnn"))
    flat, back = jax.vjp(cudnn.flat_weights, p)
    assert flat.dtype == jnp.float32
    (found,) = back(flat)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(p), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a.astype(jnp.float32), b.astype(jnp.float32))


def test_jax_reference_of_cudnn_over_these_weights_equals_the_scan():
    p, xs, carry, lengths = params("scan"), cases.sequence(B, T), drawn_carry(), jnp.array([7, 2, 4, 1], jnp.int32)
    xs = common.zero_padding(xs, common.valid_mask(lengths, T))

    def by_reference(p, xs, carry):
        flat = cudnn.flat_weights(p)
        ys, h, c = lstm_stand_in.reference(xs, carry.h[None], carry.c[None], flat, lengths, (D, H))
        return lstm.Carry(c=c[0], h=h[0]), ys

    def by_scan(p, xs, carry):
        return lstm.unroll(p, xs, carry=carry, seq_lengths=lengths)

    def with_gradients(run):
        def weighed(*arrays):
            outputs = run(*arrays)
            return cases.weigh(outputs, cases.cotangents(outputs)), outputs

        return jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))(p, xs, carry)

    close(with_gradients(by_reference), with_gradients(by_scan))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"resets": jnp.zeros((B, T), bool)}, "resets are given, and cuDNN has none"),
        ({"plain": True}, "plain is True, and cuDNN has a gradient for reverse mode alone"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16', and JAX has cuDNN's LSTM for float32 alone"),
        pytest.param({}, "JAX sees no NVIDIA GPU", marks=without_gpu),
    ],
)
def test_what_cudnn_cannot_run_is_refused_by_reason(options, reason):
    dtype = {"dtype": options["dtype"]} if "dtype" in options else {}
    options = {k: v for k, v in options.items() if k not in dtype}
    xs = cases.sequence(B, T)
    message = f"implementation is 'cudnn', which cannot run this call: {reason}. Expected .* or implementation='auto'"
    with pytest.raises(ValueError, match=message):
        lstm.unroll(params("cudnn", **dtype), xs, **options)


def test_a_symbolic_shape_is_refused():
    batch, steps = export.symbolic_shape("batch, steps")
    xs = jax.ShapeDtypeStruct((batch, steps, D), jnp.float32)
    with pytest.raises(ValueError, match=r"xs has the symbolic shape \(batch, steps, 3\), and cuDNN must know it"):
        export.export(jax.jit(lambda xs: lstm.unroll(params("cudnn"), xs)))(xs)


@pytest.mark.parametrize("implementation", ["fast", "CUDNN", None, True])
def test_another_implementation_is_refused(implementation):
    with pytest.raises(ValueError, match=r"implementation is .*; expected one of 'auto', 'scan', 'cudnn', 'kernel'"):
        lstm.init(jax.random.key(0), D, H, implementation=implementation)


def test_step_takes_any_implementation():
    x, carry = cases.sequence(B, T)[:, 0], drawn_carry()
    close(lstm.step(params("cudnn"), carry, x), lstm.step(params("scan"), carry, x), atol=0)


def test_auto_is_the_program_of_the_scan_where_cudnn_could_run_too(monkeypatch, caplog):
    lstm_stand_in.install(monkeypatch)
    xs, carry = cases.sequence(B, T), drawn_carry()
    with caplog.at_level(logging.DEBUG, "qlstm_jax"):
        auto, scan, by_name = (
            str(jax.make_jaxpr(gradients)(params(way), xs, carry)) for way in ("auto", "scan", "cudnn")
        )
    assert auto == scan != by_name
    told = ("scan; not cudnn: it is taken by name alone", "scan", "cudnn")
    for message, text in zip(caplog.messages, told, strict=True):
        assert message.startswith(f"lstm, xs {xs.shape}: {text}")


def test_auto_looks_no_further_than_the_first_that_can_run(caplog):
    def never():
        raise AssertionError

    with caplog.at_level(logging.DEBUG, "qlstm_jax"):
        assert common.choose("auto", "c", first=lambda: "too long", second=lambda: None, third=never) == "second"
        assert common.choose("scan", "c", first=never) == "scan"
        assert common.choose("second", "c", first=never, second=lambda: None) == "second"
        assert common.choose("auto", "c", first=lambda: "a", second=lambda: "b") == "scan"
    assert caplog.messages == ["c: second", "c: scan", "c: second", "c: scan; not first: a; not second: b"]


@pytest.mark.parametrize("layer", ["nnx", "linen"])
def test_layers_take_the_option(layer, monkeypatch):
    monkeypatch.setattr(cudnn, "has_gpu", lambda: False)
    xs = cases.sequence(B, T)
    with pytest.raises(ValueError, match="JAX sees no NVIDIA GPU"):
        if layer == "nnx":
            LSTM(D, H, implementation="cudnn", rngs=nnx.Rngs(0))(xs)
        else:
            linen.LSTM(H, implementation="cudnn").init(jax.random.key(0), xs)


def test_the_stand_in_takes_the_place_of_cudnn(monkeypatch):
    """Else the tests below would compare the scan with itself."""
    lowered, xs, carry = lstm_stand_in.install(monkeypatch), cases.sequence(B, T), drawn_carry()
    expected = gradients(params("scan"), xs, carry)
    assert lowered == []
    close(gradients(params("cudnn"), xs, carry), expected)
    assert set(lowered) == {"forward", "backward"}


def without_lengths(p, xs, carry):
    return jax.value_and_grad(lambda *a: loss(*a, lengths=None), argnums=(0, 1, 2))(p, xs, carry)


def hessian_vector(p, xs, carry):
    return jax.jvp(lambda xs: gradients(p, xs, carry), (xs,), (jnp.cos(xs),))[1]


def gradient_of_gradient(p, xs, carry):
    return jax.grad(lambda xs: jnp.sum(jnp.sin(gradients(p, xs, carry)[1])))(xs)


def gradients_of_rows(p, xs, carry):
    def of_row(x, carry, length):
        row = jax.tree.map(lambda a: a[None], (x, carry, length))
        return gradients(p, *row)

    return jax.vmap(of_row)(xs, carry, LENGTHS)


def gradients_of_several_params(p, xs, carry):
    several = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), p)
    return jax.vmap(gradients, (0, None, None))(several, xs, carry)


def rows_of_a_jacobian(p, xs, carry):
    return jax.jacrev(lambda xs: lstm.unroll(p, xs, carry=carry, seq_lengths=LENGTHS)[1][:, ::3, 0])(xs)


def checkpointed(p, xs, carry):
    return jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2))(p, xs, carry)


def shard_mapped(p, xs, carry):
    mesh = jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    rows = P("rows")
    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(P(), rows, rows, rows), out_specs=(P(), rows, rows))
    return mapped(p, xs, carry, LENGTHS)


@pytest.mark.parametrize(
    "transformed",
    [
        without_lengths,
        gradients,
        hessian_vector,
        gradient_of_gradient,
        gradients_of_rows,
        gradients_of_several_params,
        rows_of_a_jacobian,
        checkpointed,
        shard_mapped,
    ],
    ids=lambda f: f.__name__,
)
def test_cudnn_equals_the_scan_under(transformed, monkeypatch):
    lstm_stand_in.install(monkeypatch)
    xs, carry = cases.sequence(B, T), drawn_carry()
    found, expected = (jax.jit(lambda *a: transformed(*a))(params(way), xs, carry) for way in ("cudnn", "scan"))
    close(found, expected)


def test_padding_reaches_nothing_and_a_row_of_none_keeps_its_carry(monkeypatch):
    lstm_stand_in.install(monkeypatch)
    xs, carry = cases.sequence(B, T), drawn_carry()
    padding = ~common.valid_mask(LENGTHS, T)
    dirty = jnp.where(padding[..., None], jnp.nan, xs)
    end, ys = lstm.unroll(params("cudnn"), dirty, carry=carry, seq_lengths=LENGTHS)
    assert not np.asarray(ys)[np.asarray(padding)].any()
    np.testing.assert_array_equal(end.c[1], carry.c[1])
    np.testing.assert_array_equal(end.h[1], carry.h[1])
    close(gradients(params("cudnn"), dirty, carry), gradients(params("scan"), xs, carry))


@pytest.mark.parametrize("shape", [(0, T), (B, 0)])
def test_no_rows_and_no_tokens(shape, monkeypatch):
    lstm_stand_in.install(monkeypatch)
    xs, carry = cases.sequence(*shape), lstm.Carry(*(a[: shape[0]] for a in drawn_carry()))
    found, expected = (lstm.unroll(params(way), xs, carry=carry) for way in ("cudnn", "scan"))
    close(found, expected, atol=0)


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [(None, True), ("default", True), ("tensorfloat32", True), ("highest", False), ("F32_F32_F32", False)],
)
def test_tensor_float_is_allowed_where_it_is_for_other_products(precision, allowed, monkeypatch):
    lstm_stand_in.install(monkeypatch)
    with jax.default_matmul_precision(precision):
        text = str(jax.make_jaxpr(gradients)(params("cudnn"), cases.sequence(B, T), drawn_carry()))
    assert text.count(f"cudnn_allow_tf32={allowed}") == 2  # forward and backward
    assert f"cudnn_allow_tf32={not allowed}" not in text


@on_gpu
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_on_a_gpu_outputs_and_gradients_equal_those_of_the_scan(lengths):
    xs, carry = cases.sequence(B, T), drawn_carry()
    with jax.default_matmul_precision("highest"):
        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        found, expected = (run(params(way), xs, carry, lengths) for way in ("cudnn", "scan"))
    close(found, expected)


@on_gpu
def test_on_a_gpu_cudnn_itself_is_called_by_name_alone():
    xs, carry = cases.sequence(B, T), drawn_carry()
    by_name, auto = (jax.jit(gradients).lower(params(way), xs, carry).as_text() for way in ("cudnn", "auto"))
    assert "cudnn_rnn" in by_name and "cudnn_rnn" not in auto
