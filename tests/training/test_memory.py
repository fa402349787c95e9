"""What trades time or precision for memory: pieces of a batch, rounded parameters, a factored optimiser, remat."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.nnx import LSTM
from qlstm_jax.studies.footprint import step_bytes
from qlstm_jax.training import config_checks
from qlstm_jax.training.beginning import static_model
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.gradients import deal, gather
from qlstm_jax.training.step import make_optimizer
from tests.training.conftest import assert_same, tiny
from tests.training.test_meshes import Setup, config_of

PLAIN = {"model__dropout": 0.0, "model__embedding_dropout": 0.0, "model__num_layers": 1}
LARGE = {
    "recall__length": 64,
    "model__cell": "lstm",
    "model__num_layers": 2,
    "model__hidden_size": 32,
    "train__batch_size": 64,
}


def memory(tmp_path, **changes):
    """The bytes of a training step, from the compiled program."""
    config = tiny("recall", **LARGE | changes)
    return step_bytes(problems.make(config, tmp_path), config)


@pytest.mark.parametrize("kind", ["recall", "text", "lm"])
def test_pieces_of_a_batch_make_the_step_of_the_whole(kind, tmp_path):
    """Of texts, rows weigh differently; of a language model, each row's carry goes on."""
    whole, state = Setup(config_of(kind, tmp_path, **PLAIN), tmp_path / "run").steps(3)
    for mesh in ("", "data:2,fsdp:2"):
        config = config_of(kind, tmp_path, mesh, **PLAIN, train__accumulate=4)
        figures, end = Setup(config, tmp_path / "run").steps(3)
        assert_same(figures, whole, 1e-5)
        assert_same(jax.device_get((end.params, end.carry)), jax.device_get((state.params, state.carry)), 3e-5)


def test_pieces_hold_neighbours_apart_and_come_together_again():
    rows = jnp.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(deal(rows, 3)[1], rows[1::3])
    np.testing.assert_array_equal(gather(deal({"a": rows}, 3))["a"], rows)


def test_pieces_take_the_memory_of_one(tmp_path):
    assert memory(tmp_path, train__accumulate=8) < 0.5 * memory(tmp_path)


def test_rounded_parameters_compute_and_those_of_float32_are_trained(tmp_path):
    rate = 1e-6  # which a parameter of bfloat16 would not notice
    config = config_of("recall", tmp_path, **PLAIN, train__param_dtype="bfloat16", train__learning_rate=rate)
    setup = Setup(config, tmp_path / "run")
    start = jax.device_get(setup.state().params)
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16), start)
    model = nnx.merge(nnx.graphdef(static_model(setup.problem)), rounded)
    sample_key, _ = jax.random.split(jax.random.fold_in(setup.keys[1], 0))
    sums = setup.problem.loss(model, setup.problem.sample(sample_key, 16, 0), nnx.Rngs(0))
    (first, *_), state = setup.steps(3)
    np.testing.assert_allclose(first["loss"], sums["loss"] / sums["weight"], rtol=1e-5)
    exact = config_of("recall", tmp_path, **PLAIN, train__learning_rate=rate)
    assert abs(Setup(exact, tmp_path / "run").steps(1)[0][0]["loss"] - first["loss"]) > 1e-6
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), jax.device_get(state.params), start)
    assert 2 * rate < max(jax.tree.leaves(moved)) < 4 * rate
    assert {a.dtype for a in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_adafactor_keeps_rows_and_columns():
    """Against optax's own, and by the size of what it keeps."""
    params = {"kernel": jnp.ones((256, 128)), "bias": jnp.ones(128)}
    grads = jax.tree.map(lambda a: jnp.full(a.shape, 1e-3), params)
    optimizer = make_optimizer(tiny(train__optimizer="adafactor", train__learning_rate=0.01).train)
    state = optimizer.init(params)
    kept = sum(a.size for a in jax.tree.leaves(state))
    assert 256 + 128 + 128 <= kept < 1000
    updates, _ = optimizer.update(grads, state, params)
    clip = 1.0 / max(1.0, float(optax.tree.norm(grads)))
    own = optax.adafactor(0.01)
    expected, _ = own.update(jax.tree.map(lambda g: g * clip, grads), own.init(params), params)
    assert_same(updates, expected, 1e-7)
    with pytest.raises(ConfigError, match="only adamw decays weights"):
        config_checks.check(tiny(train__optimizer="adafactor", train__weight_decay=0.1))


@pytest.mark.parametrize("cell", ["lstm", "ql_lstm", "mlstm", "pr_lstm"])
def test_what_is_computed_again_is_the_same(cell, tmp_path):
    options = {**PLAIN, "model__cell": cell, "model__num_layers": 2, "model__dropout": 0.2}
    plain = Setup(config_of("recall", tmp_path, **options), tmp_path / "run").steps(2)[0]
    again = Setup(config_of("recall", tmp_path, **options, model__remat="layers"), tmp_path / "run").steps(2)[0]
    assert_same(again, plain, 1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradient_keeps_what_goes_into_a_layer(bidirectional):
    """By what `jax.vjp` keeps: the compiler of a CPU computes together again what is to be computed twice."""
    layer = LSTM(16, 16, num_layers=3, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    xs = jnp.ones((8, 64, 16))

    def kept(remat):
        layer.remat = remat
        graphdef, params = nnx.split(layer)
        back = jax.eval_shape(lambda p: jax.vjp(lambda p: nnx.merge(graphdef, p)(xs), p)[1], params)
        weights = sum(a.size for a in jax.tree.leaves(params))
        return sum(a.size for a in jax.tree.leaves(back)) - weights

    inputs = xs.size * (1 + 2 * (2 if bidirectional else 1))
    assert kept("layers") <= 1.2 * inputs * (2 if bidirectional else 1)
    assert kept("none") > 3 * kept("layers")


@pytest.mark.parametrize(
    ("cell", "message"), [("transformer", "only layers of cells"), ("pr_lstm", "model.pr_lstm.remat=True")]
)
def test_remat_where_there_is_none(cell, message):
    with pytest.raises(ConfigError, match=f"model.remat is 'layers'.*{message}"):
        config_checks.check(tiny(model__cell=cell, model__remat="layers"))
