import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import interop
from qlstm_jax.cells import gru, lstm, pr_lstm, rnn

D, H = 3, 4
FLAX = {
    "lstm": (lstm, nn.OptimizedLSTMCell, interop.lstm_from_flax, interop.lstm_to_flax),
    "gru": (gru, nn.GRUCell, interop.gru_from_flax, interop.gru_to_flax),
    "rnn": (rnn, nn.SimpleCell, interop.rnn_from_flax, interop.rnn_to_flax),
}
EACH_FLAX_CELL = pytest.mark.parametrize("name", list(FLAX))


def redrawn(tree, seed=0):
    """Normal numbers in place of every array, so that no bias is zero and no two gates are alike."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.6 * rng.normal(size=a.shape), a.dtype), tree)


def sequence(steps=6):
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, steps, D)), jnp.float32)


def flax_cell(name):
    """A Linen cell and random variables for it."""
    module = FLAX[name][1](H)
    carry = module.initialize_carry(jax.random.key(0), (2, D))
    shapes = jax.eval_shape(module.init, jax.random.key(0), carry, jnp.zeros((2, D)))
    return module, redrawn(shapes)


@EACH_FLAX_CELL
def test_flax_cell_gives_the_same_outputs(name):
    cell, _, from_flax, _ = FLAX[name]
    module, variables = flax_cell(name)
    xs = sequence()
    with jax.numpy_rank_promotion("allow"):  # Flax adds (H,) to (B, H)
        carry, expected = module.initialize_carry(jax.random.key(0), (2, D)), []
        for t in range(xs.shape[1]):
            carry, y = module.apply(variables, carry, xs[:, t])
            expected.append(y)
    final, ys = cell.unroll(from_flax(variables["params"]), xs)
    np.testing.assert_allclose(ys, np.stack(expected, axis=1), rtol=2e-6, atol=2e-6)
    for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


@EACH_FLAX_CELL
def test_flax_round_trips(name):
    cell, _, from_flax, to_flax = FLAX[name]
    tree = flax_cell(name)[1]["params"]
    chex.assert_trees_all_equal(to_flax(from_flax(tree)), dict(tree))
    params = redrawn(cell.init(jax.random.key(0), D, H, dtype="bfloat16"), seed=2)
    chex.assert_trees_all_equal(from_flax(to_flax(params), dtype="bfloat16"), params)


def test_flax_errors_list_every_name():
    tree = dict(flax_cell("lstm")[1]["params"])
    del tree["hf"]
    tree |= {"extra": {"kernel": np.zeros(2)}, "io": {"kernel": np.zeros((D, H + 1))}}
    with pytest.raises(ValueError, match="Flax's LSTM cell") as error:
        interop.lstm_from_flax(tree)
    message = str(error.value)
    assert "missing: hf/bias, hf/kernel" in message
    assert "unexpected: extra/kernel" in message
    assert f"io/kernel is ({D}, {H + 1}), expected ({D}, {H})" in message
    assert "ii/kernel" not in message


def test_flax_tree_of_another_cell():
    with pytest.raises(ValueError, match=r"GRU cell.*missing: hn/bias.*unexpected: hf/bias"):
        interop.gru_from_flax(flax_cell("lstm")[1]["params"])
    with pytest.raises(ValueError, match=r"simple cell.*missing: h/kernel.*unexpected: params/h, params/i"):
        interop.rnn_from_flax(flax_cell("rnn")[1])


NNX = {
    "LSTMCell": ("lstm", "nnx"),
    "OptimizedLSTMCell": ("lstm", "nnx_fused"),
    "GRUCell": ("gru", "nnx_fused"),
    "SimpleCell": ("rnn", "nnx_fused"),
}


def nnx_cell(kind, **options):
    """A cell with random weights."""
    cell = getattr(nnx, kind)(D, H, rngs=nnx.Rngs(params=0), **options)
    nnx.update(cell, redrawn(nnx.state(cell, nnx.Param)))
    return cell


@pytest.mark.parametrize("kind", list(NNX))
def test_nnx_cell_gives_the_same_outputs(kind):
    name, form = NNX[kind]
    cell, _, from_flax, to_flax = FLAX[name]
    theirs, xs = nnx_cell(kind), sequence()
    params = from_flax(theirs)
    with jax.numpy_rank_promotion("allow"):  # Flax adds (H,) to (B, H)
        carry, expected = theirs.initialize_carry((2, D), rngs=nnx.Rngs(0)), []
        for t in range(xs.shape[1]):
            carry, y = theirs(carry, xs[:, t])
            expected.append(y)
    final, ys = cell.unroll(params, xs)
    np.testing.assert_allclose(ys, np.stack(expected, axis=1), rtol=2e-6, atol=2e-6)
    for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
    # Back, into another cell; and a state or its dict says as much as the cell.
    other = getattr(nnx, kind)(D, H, rngs=nnx.Rngs(params=1))
    nnx.update(other, to_flax(params, form=form))
    chex.assert_trees_all_equal(nnx.state(other), nnx.state(theirs))
    for source in (nnx.state(theirs), nnx.to_pure_dict(nnx.state(theirs))):
        chex.assert_trees_all_equal(from_flax(source), params)


def test_boxed_parameters_of_linen():
    tree = flax_cell("lstm")[1]["params"]
    boxed = jax.tree.map(lambda a: nn.Partitioned(a, names=(None,) * a.ndim), tree)
    chex.assert_trees_all_equal(interop.lstm_from_flax(boxed), interop.lstm_from_flax(tree))


def test_options_of_an_nnx_cell_that_ours_lacks_are_named():
    with pytest.raises(ValueError, match="residual of the SimpleCell is True; expected False"):
        interop.rnn_from_flax(nnx_cell("SimpleCell", residual=True))
    with pytest.raises(ValueError, match="activation_fn of the GRUCell is relu; expected tanh"):
        interop.gru_from_flax(nnx_cell("GRUCell", activation_fn=nnx.relu))
    params = interop.gru_from_flax(flax_cell("gru")[1]["params"])
    with pytest.raises(ValueError, match="recurrent_bias is not zero, and the GRUCell of NNX has no such bias"):
        interop.gru_to_flax(params, form="nnx_fused")
    with pytest.raises(ValueError, match="form is 'nnx'; expected one of 'linen', 'nnx_fused'"):
        interop.gru_to_flax(params, form="nnx")


def test_errors_of_nnx_cells_list_every_name():
    with pytest.raises(ValueError, match=r"LSTM cell of NNX.*missing: dense_h/bias; unexpected: dense_i/bias; "):
        interop.lstm_from_flax(nnx_cell("GRUCell"))
    state = nnx.to_pure_dict(nnx.state(nnx_cell("LSTMCell")))
    del state["if_"]
    state["if"] = {"kernel": np.zeros((D, H))}
    interop.lstm_from_flax(state)  # which is Linen's form
    with pytest.raises(ValueError, match=r"missing: if/kernel; unexpected: extra/kernel"):
        interop.lstm_from_flax({**{k: v for k, v in state.items() if k != "if"}, "extra": {"kernel": np.zeros(1)}})


def haiku_names(params, start="net/~get_"):
    """The official names of a PR-LSTM's parameters."""
    stem = f"{start}cell/nary_{params.cell}"
    flat = {f"{start}elems/linear/w": params.leaf_kernel, f"{start}elems/linear/b": params.leaf_bias}
    flat |= {f"{stem}/linear/w": params.merge_kernel, f"{stem}/linear/b": params.merge_bias}
    for r, (kernel, bias) in enumerate(zip(params.refine_kernel, params.refine_bias, strict=True), start=1):
        flat |= {f"{stem}_{r}/linear/w": kernel, f"{stem}_{r}/linear/b": bias}
    return {name: np.asarray(a) for name, a in flat.items()}


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("refinements", [0, 1, 2, 11])
@pytest.mark.parametrize("start", ["~get_", "a/b/~get_"])
def test_haiku_names(cell, refinements, start):
    """With 11 refinements, nary_lstm_10 must not come before nary_lstm_2."""
    params = redrawn(pr_lstm.init(jax.random.key(0), D, H, cell=cell, refinements=refinements))
    chex.assert_trees_all_equal(interop.pr_lstm_from_haiku(haiku_names(params, start)), params)


def test_haiku_errors_list_every_name():
    flat = haiku_names(redrawn(pr_lstm.init(jax.random.key(0), D, H, refinements=2)))
    del flat["net/~get_cell/nary_lstm_1/linear/w"], flat["net/~get_elems/linear/b"]
    flat |= {"net/linear/w": np.zeros((H, 2)), "net/~get_cell/nary_lstm/linear/w": np.zeros((H, 5 * H))}
    with pytest.raises(ValueError, match="PR-LSTM with 2 refinements") as error:
        interop.pr_lstm_from_haiku(flat)
    message = str(error.value)
    assert "missing: net/~get_cell/nary_lstm_1/linear/w, net/~get_elems/linear/b" in message
    assert "unexpected: net/linear/w" in message
    assert f"net/~get_cell/nary_lstm/linear/w is ({H}, {5 * H}), expected ({2 * H}, {5 * H})" in message


def test_haiku_error_for_two_models_and_for_none():
    params = redrawn(pr_lstm.init(jax.random.key(0), D, H))
    with pytest.raises(ValueError, match="unexpected: b/~get_cell"):
        interop.pr_lstm_from_haiku(haiku_names(params, "a/~get_") | haiku_names(params, "b/~get_"))
    with pytest.raises(ValueError, match="missing: ~get_cell/nary_lstm/linear/b"):
        interop.pr_lstm_from_haiku({})
    mixed = haiku_names(params) | {"net/~get_cell/nary_rnn/linear/b": np.zeros(H)}
    with pytest.raises(ValueError, match="unexpected: net/~get_cell/nary_rnn/linear/b"):
        interop.pr_lstm_from_haiku(mixed)
