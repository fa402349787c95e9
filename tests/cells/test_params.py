"""Parameters: how many, how they start, what travels with them, and which mistakes are named at the door."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import gru, lstm, pr_lstm, ql_lstm, rnn
from qlstm_jax.cells.common import chrono_bias
from tests.cells import cases

KEY = jax.random.key(0)


def count(cell, inputs, hidden, **options):
    return sum(a.size for a in jax.tree.leaves(jax.eval_shape(lambda: cell.init(KEY, inputs, hidden, **options))))


@pytest.mark.parametrize("hidden", [1, 12, 512])
def test_counts_at_equal_sizes(hidden):
    h = hidden
    assert count(rnn, h, h) == 2 * h * h + h
    assert count(lstm, h, h) == 8 * h * h + 4 * h
    assert count(gru, h, h) == 6 * h * h + 4 * h
    assert count(ql_lstm, h, h) == 4 * h * h + 13 * h
    assert count(ql_lstm, h, h, num_heads=h) == 3 * h * h + 14 * h
    assert count(ql_lstm, h, h, skip=False) == 2 * h * h + 8 * h
    assert count(ql_lstm, h, h, skip=False, sharing="gates") == 4 * h * h + 8 * h
    assert count(ql_lstm, h, h, skip=False, sharing="none") == count(lstm, h, h)


@pytest.mark.parametrize(("refinements", "paper"), [(0, 660_226), (1, 923_394), (2, 1_186_562)])
def test_counts_of_the_paper(refinements, paper):
    """With the readout, a linear map from 256 to 2."""
    assert count(pr_lstm, 3, 256, refinements=refinements) + 256 * 2 + 2 == paper


@cases.ALL
def test_options_travel_with_the_params(case):
    params = case.params(dtype="bfloat16")
    doubled = jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p))(params)
    chex.assert_trees_all_equal(doubled, jax.tree.map(lambda a: 2 * a, params))
    assert jax.tree.structure(doubled) == jax.tree.structure(params)
    assert doubled.dtype == "bfloat16"
    fields = {f.name for f in dataclasses.fields(params)}  # other options are only seen in the weights
    for option, value in case.options:
        assert option not in fields or getattr(doubled, option) == value
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(params))


def test_other_options_are_other_programs():
    """An option is static, so that jit specialises on it: the same arrays with another block size compile anew."""
    traces = []

    @jax.jit
    def run(params):
        traces.append(params.block_size)
        return params.gate_bias

    for block_size in (4, 8, 4):
        run(ql_lstm.init(KEY, 3, 5, block_size=block_size))
    assert traces == [4, 8]


@cases.MAIN
def test_dtypes(case):
    make = functools.partial(case.cell.init, KEY, cases.D, cases.H, **dict(case.options))
    for param_dtype in ("float32", "bfloat16"):
        shapes = jax.eval_shape(functools.partial(make, dtype=jnp.bfloat16, param_dtype=param_dtype))
        assert {a.dtype.name for a in jax.tree.leaves(shapes)} == {param_dtype}
        assert shapes.dtype == "bfloat16"
    chex.assert_trees_all_equal(make(), make())
    other = case.cell.init(jax.random.key(1), cases.D, cases.H, **dict(case.options))
    assert not np.allclose(jax.tree.leaves(make())[0], jax.tree.leaves(other)[0])


def assert_orthogonal(kernel):
    """Every square block of (H, blocks·H), and no two of them the same."""
    blocks = np.split(np.asarray(kernel, np.float64), kernel.shape[1] // kernel.shape[0], axis=1)
    for k, block in enumerate(blocks):
        np.testing.assert_allclose(block.T @ block, np.eye(len(block)), atol=1e-5)
        assert all(np.abs(block - other).max() > 0.1 for other in blocks[:k])


def assert_truncated_normal(kernel, scale, *, corrected):
    """Scale times a normal cut at two deviations; such a cut leaves 0.8796 of the deviation unless corrected for."""
    left = 0.87962566
    deviation = scale if corrected else scale * left
    values = np.asarray(kernel)
    assert values.size > 10_000
    np.testing.assert_allclose(values.std(), deviation, rtol=0.03)
    assert abs(values.mean()) < 0.03 * scale
    bound = 2 * deviation / left
    assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)


def test_initial_values_of_the_baselines():
    inputs, hidden = 200, 80
    simple, plain, gated = (cell.init(KEY, inputs, hidden) for cell in (rnn, lstm, gru))
    for params in (simple, plain, gated):
        assert_truncated_normal(params.input_kernel, inputs**-0.5, corrected=True)
        assert_orthogonal(params.recurrent_kernel)
    np.testing.assert_array_equal(plain.bias, np.repeat([0, 1, 0, 0], hidden))
    assert not np.any(simple.bias) and not np.any(gated.bias) and not np.any(gated.recurrent_bias)


def test_initial_values_of_ql_lstm():
    inputs, hidden = 200, 110
    params = ql_lstm.init(KEY, inputs, hidden)
    assert_truncated_normal(params.input_kernel, inputs**-0.5, corrected=True)
    assert_truncated_normal(params.summary_kernel, hidden**-0.5, corrected=True)
    for kernel in (params.recurrent_kernel, params.memory_kernel):
        assert_orthogonal(kernel)
    np.testing.assert_array_equal(params.gate_bias, np.repeat([[0], [1], [0], [0]], hidden, axis=1))
    assert not np.any(params.write_bias)
    np.testing.assert_array_equal(params.read_scale, np.ones(hidden))
    for scale in (params.gate_scale, params.write_scale):
        np.testing.assert_array_equal(np.abs(np.asarray(scale) - 1), np.full(scale.shape, 0.5))
        for j in range(len(scale)):  # a gate is as another in about half of the units, never in all
            same = [np.mean(scale[j] == scale[k]) for k in range(len(scale)) if k != j]
            assert min(same) > 0.25 and max(same) < 0.75
    assert_orthogonal(ql_lstm.init(KEY, inputs, hidden, sharing="none").recurrent_kernel)
    biases = ql_lstm.init(KEY, inputs, hidden, forget_bias=2.5).gate_bias
    np.testing.assert_array_equal(biases, np.outer([0, 2.5, 0, 0], np.ones(hidden)))


def biases(cell, key, hidden, chrono):
    """(gates, H), in the order of the cell."""
    params = cell.init(key, 2, hidden, chrono=chrono)
    return np.asarray(params.gate_bias if cell is ql_lstm else params.bias.reshape(-1, hidden))


def test_chrono_bias_has_all_time_scales():
    """They are uniform on 1 .. longest − 1."""
    hidden, longest = 4000, 100
    scales = np.sort(np.exp(chrono_bias(KEY, hidden, longest)))
    np.testing.assert_allclose(scales, np.linspace(1, longest - 1, hidden), atol=0.04 * longest)


@pytest.mark.parametrize(("cell", "lets_in", "keeps"), [(lstm, 0, 1), (ql_lstm, 0, 1), (gru, None, 1)])
def test_chrono_initialisation(cell, lets_in, keeps):
    """The gate that keeps has such biases; other gates and all other weights stay as they were."""
    hidden, longest = 60, 100
    drawn, usual = biases(cell, KEY, hidden, longest), biases(cell, KEY, hidden, 0)
    scales = np.sort(np.exp(drawn[keeps]))
    np.testing.assert_allclose(scales, np.linspace(1, longest - 1, hidden), atol=0.2 * longest)
    assert scales[0] >= 1 and scales[-1] <= longest - 1
    if lets_in is not None:
        np.testing.assert_array_equal(drawn[lets_in], -drawn[keeps])
    others = [j for j in range(len(drawn)) if j not in (lets_in, keeps)]
    np.testing.assert_array_equal(drawn[others], usual[others])
    assert not np.allclose(drawn[keeps], biases(cell, jax.random.key(1), hidden, longest)[keeps])

    params, plain = cell.init(KEY, 2, 6, chrono=longest), cell.init(KEY, 2, 6)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), params, plain)
    assert [same.input_kernel, same.recurrent_kernel] == [True, True]
    assert jax.tree.leaves(same).count(False) == 1


@pytest.mark.parametrize("cell", [lstm, gru, ql_lstm], ids=["lstm", "gru", "ql_lstm"])
@pytest.mark.parametrize("bad", [2, -5, True, 7.5])
def test_bad_chrono(cell, bad):
    with pytest.raises(ValueError, match=f"chrono is {bad!r}; expected the longest dependence in tokens"):
        cell.init(KEY, 3, 4, chrono=bad)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_initial_values_of_pr_lstm(cell):
    inputs, hidden = 150, 90
    params = pr_lstm.init(KEY, inputs, hidden, cell=cell, refinements=2)
    assert_truncated_normal(params.leaf_kernel, inputs**-0.5, corrected=False)
    assert_truncated_normal(params.merge_kernel, (2 * hidden) ** -0.5, corrected=False)
    assert_truncated_normal(params.refine_kernel, hidden**-0.5, corrected=False)
    assert not np.allclose(params.refine_kernel[0], params.refine_kernel[1])
    assert not any(np.any(b) for b in (params.leaf_bias, params.merge_bias, params.refine_bias))


def test_initial_values_of_the_other_merges():
    hidden = 90
    ldru = pr_lstm.init(KEY, 150, hidden, cell="ldru", refinements=2)
    grc = pr_lstm.init(KEY, 150, hidden, cell="grc")
    for params in (ldru, grc):
        assert_truncated_normal(params.leaf_kernel, 150**-0.5, corrected=False)
        assert_truncated_normal(params.merge_kernel, (2 * hidden) ** -0.5, corrected=False)
        assert_truncated_normal(params.gate_kernel, (4 * hidden) ** -0.5, corrected=False)
        assert not any(np.any(a) for name, a in vars(params).items() if name.endswith("bias"))
        assert np.all(params.norm_scale == 1)
    np.testing.assert_array_equal(ldru.value_kernel, np.tile(np.eye(hidden), (2, 1)))
    assert_truncated_normal(ldru.refine_kernel, hidden**-0.5, corrected=False)
    assert_truncated_normal(ldru.refine_output_kernel, (4 * hidden) ** -0.5, corrected=False)
    once = pr_lstm.init(KEY, 5, hidden, cell="ldru")
    assert sum(a.size for a in jax.tree.leaves(once)) == (8 + 8 + 2 + 1 + 8) * hidden**2 + 23 * hidden
    assert sum(a.size for a in jax.tree.leaves(grc)) == (8 + 16) * hidden**2 + 161 * hidden


@cases.MAIN
def test_initial_carry_is_zero(case):
    carry = case.cell.initial_carry(case.params(), 2)
    assert all(a.shape[0] == 2 and not np.any(a) for a in jax.tree.leaves(carry))


@pytest.mark.parametrize("cell", [rnn, lstm, gru, ql_lstm, pr_lstm], ids=lambda c: c.__name__.split(".")[-1])
@pytest.mark.parametrize("bad", [0, -3, 2.0, "8", True, None])
def test_bad_sizes(cell, bad):
    with pytest.raises(ValueError, match=f"input_size is {bad!r}; expected a positive integer"):
        cell.init(KEY, bad, 4)
    with pytest.raises(ValueError, match=f"hidden_size is {bad!r}; expected a positive integer"):
        cell.init(KEY, 4, bad)


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (ql_lstm, {"block_size": 0}, "block_size is 0; expected a positive integer"),
        (ql_lstm, {"sharing": "all"}, "sharing is 'all'; expected one of 'full', 'gates', 'none'"),
        (ql_lstm, {"num_heads": 0}, "num_heads is 0; expected a positive integer"),
        (ql_lstm, {"num_heads": 3}, "hidden_size is 4 and num_heads 3; expected a hidden_size that is a multiple of"),
        (ql_lstm, {"epsilon": 0.0}, "epsilon is 0.0; expected a number above 0"),
        (ql_lstm, {"epsilon": float("nan")}, "epsilon is nan; expected a number above 0"),
        (ql_lstm, {"chrono": 9, "forget_bias": 2.0}, "chrono is 9 and forget_bias 2.0; expected chrono=0 or"),
        (pr_lstm, {"cell": "gru"}, "cell is 'gru'; expected one of 'lstm', 'rnn', 'ldru', 'grc'"),
        (pr_lstm, {"refinements": -1}, "refinements is -1; expected an integer, 0 or more"),
        (pr_lstm, {"refinements": True}, "refinements is True; expected an integer, 0 or more"),
    ],
)
def test_bad_options(cell, options, message):
    with pytest.raises(ValueError, match=message):
        cell.init(KEY, 3, 4, **options)


@pytest.mark.parametrize("max_length", [0, -1, 2**31])
def test_bad_max_length(max_length):
    with pytest.raises(ValueError, match=f"max_length is {max_length}; expected 1 to 2147483647"):
        pr_lstm.initial_carry(pr_lstm.init(KEY, 3, 4), 2, max_length=max_length)


@cases.MAIN
def test_bad_inputs(case):
    params, xs = case.params(), jnp.zeros((2, 7, cases.D))
    carry = case.cell.initial_carry(params, 2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 3\); expected \(batch, 3\).*call unroll"):
        case.cell.step(params, carry, xs)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\); expected \(batch, 3\)"):
        case.cell.step(params, carry, jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"xs has shape \(2, 3\); expected \(batch, time, 3\).*call step"):
        case.cell.unroll(params, xs[:, 0])
    with pytest.raises(ValueError, match=r"xs has shape \(2, 7, 4\); expected \(batch, time, 3\)"):
        case.cell.unroll(params, jnp.zeros((2, 7, 4)))
    for lengths, given in [([1, 2, 3], r"int32 of shape \(3,\)"), ([1.0, 2.0], "float32"), (3, r"of shape \(\)")]:
        with pytest.raises(ValueError, match=rf"lengths is .*{given}.*expected integers of shape \(2,\)"):
            case.cell.unroll(params, xs, seq_lengths=jnp.asarray(lengths))
    for lengths, given in [([8, 1], "1 to 8"), ([-1, 7], "-1 to 7")]:
        with pytest.raises(ValueError, match=rf"lengths run from {given}; expected 0\.\.7"):
            case.cell.unroll(params, xs, seq_lengths=jnp.asarray(lengths))


def test_bad_lengths_of_reduce():
    params, xs = pr_lstm.init(KEY, 3, 4), jnp.zeros((2, 7, 3))
    with pytest.raises(ValueError, match=r"lengths run from 2 to 8; expected 0\.\.7"):
        pr_lstm.reduce(params, xs, seq_lengths=jnp.array([2, 8]))
    with pytest.raises(ValueError, match=r"xs has shape \(2, 3\)"):
        pr_lstm.reduce(params, xs[:, 0])


def test_traced_lengths_are_clipped():
    """Under jit they cannot be looked at, so one outside of 0..T counts as the nearest inside."""
    params, xs = lstm.init(KEY, 3, 4), cases.sequence(2, 5)
    run = jax.jit(lambda lengths: lstm.unroll(params, xs, seq_lengths=lengths))
    chex.assert_trees_all_equal(run(jnp.array([9, -2])), run(jnp.array([5, 0])))
