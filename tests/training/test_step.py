import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.data.batching import TextBatch
from qlstm_jax.problems.base import classification_sums
from qlstm_jax.training.beginning import run_keys
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.devices import choose_devices, make_step
from qlstm_jax.training.step import TrainState, averaged, drop_weights, initial_state, make_optimizer
from tests.training.conftest import assert_same, tiny, write_reviews

RUNS = {
    "formal": {"model__cell": "pr_lstm"},
    "recall": {"problem": "recall", "model__cell": "ql_lstm"},
    "text": {"problem": "text", "model__cell": "rnn", "model__pooling": "mean"},
    "lm": {"problem": "lm", "model__cell": "lstm", "lm__length": 4, "lm__validation": 0.1, "lm__test": 0.1},
}
# Clipping must bite, or a gradient that is wrong by a factor would pass unseen: Adam does not see the scale.
CLIP = 0.05


def text_batch(number, vocab_size):
    """16 rows of which 7 are filler: on 8 devices some hold two, some one and some none."""
    rng = np.random.default_rng(number)
    weights = np.ones(16, np.float32)
    weights[[1, 4, 5, 6, 7, 11, 15]] = 0
    lengths = np.where(weights > 0, rng.integers(1, 9, 16), 0).astype(np.int32)
    ids = np.where(np.arange(8) < lengths[:, None], rng.integers(1, vocab_size, (16, 8)), 0).astype(np.int32)
    # A filler row with a label and no weight must not count, whatever the label.
    return TextBatch(ids, lengths, rng.integers(0, 2, 16).astype(np.int32), weights)


class Setup:
    """A problem, its model and its batches."""

    def __init__(self, kind, folder, **changes):
        if kind == "text":
            changes["text__path"] = str(write_reviews(folder / "reviews.tsv"))
        if kind == "lm":
            # 16 streams of 13 tokens: the third of three windows is followed by the first, without the carry.
            changes["lm__path"] = str(folder / "text.txt")
            (folder / "text.txt").write_bytes(np.random.default_rng(0).integers(97, 123, 260).astype(np.uint8))
        self.config = tiny(**RUNS[kind] | {"train__clip_norm": CLIP} | changes)
        self.problem = problems.make(self.config, folder / "run")
        init_key, self.key, _ = run_keys(0)
        self.model = self.problem.model(nnx.Rngs(params=init_key))
        self.model.train()
        self.optimizer = make_optimizer(self.config.train)

    def batch(self, number):
        if self.config.problem == "lm":
            return self.problem.windows("train").batch(number)
        return None if self.problem.on_device else text_batch(number, self.problem.tokenizer.vocab_size)

    def steps(self, mapping, devices, count):
        """[(params, metrics)] after each of `count` steps."""
        train = self.config.train.copy_and_resolve_references()
        train.mapping, train.num_devices = mapping, devices
        step = make_step(self.problem, nnx.graphdef(self.model), self.optimizer, train)
        # Copies: the step uses up the state that it is given.
        carry = self.problem.initial_carry(self.model, 16)
        state = jax.tree.map(jnp.copy, initial_state(self.model, self.optimizer, self.key, carry))
        results, self.carries = [], []
        for number in range(count):
            state, metrics = step(state, self.batch(number))
            results.append(jax.device_get((state.params, metrics)))
            self.carries.append(jax.device_get(state.carry))
        assert int(state.step) == count
        return results


@pytest.mark.parametrize("kind", RUNS)
def test_any_mapping_and_number_of_devices_trains_alike(kind, tmp_path):
    setup = Setup(kind, tmp_path)
    one = setup.steps("shard_map", 1, 5)
    carries = setup.carries
    for mapping in ("shard_map", "pmap"):
        many = setup.steps(mapping, 8, 5)
        assert_same(many[0], one[0], 1e-5)
        assert_same(many[4], one[4], 3e-5)
        assert_same(setup.carries, carries, 3e-5)
    start = jax.device_get(initial_state(setup.model, setup.optimizer, setup.key).params)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), one[4][0], start))
    assert max(moved) > 1e-3


def test_a_mapped_step_is_the_plain_one(tmp_path):
    """Against loss, clipping and Adam (b1 0.9, b2 0.999, eps 1e-8) written out, with no axis and no optax."""
    setup = Setup("text", tmp_path)
    graphdef = nnx.graphdef(setup.model)
    params = nnx.to_pure_dict(nnx.state(setup.model, nnx.Param))

    def mean_loss(params, batch):
        logits = nnx.merge(graphdef, params)(batch.ids, seq_lengths=batch.lengths, rngs=nnx.Rngs(0))
        picked = jax.nn.log_softmax(logits)[np.arange(16), batch.labels]
        right = jnp.sum(batch.weights * (jnp.argmax(logits, -1) == batch.labels))
        return -jnp.sum(batch.weights * picked) / 9, right / 9

    first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    for number, (got, metrics) in enumerate(setup.steps("shard_map", 1, 3)):
        batch = setup.batch(number)
        (loss, accuracy), grads = jax.value_and_grad(mean_loss, has_aux=True)(params, batch)
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        assert norm > CLIP
        grads = jax.tree.map(lambda g, n=norm: g * CLIP / n, grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, grads)
        t = number + 1
        params = jax.tree.map(
            lambda p, m, v, t=t: p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8),
            params,
            first,
            second,
        )
        assert_same(got, params, 1e-5)
        expected = {"loss": loss, "accuracy": accuracy, "grad_norm": norm, "tokens": batch.lengths.sum()}
        assert_same(metrics, {k: np.float32(v) for k, v in expected.items()}, 1e-5)


def test_each_step_draws_another_batch_and_another_seed_others(tmp_path):
    setup = Setup("formal", tmp_path, model__cell="rnn")
    losses = [float(metrics["loss"]) for _, metrics in setup.steps("shard_map", 1, 3)]
    assert len(set(losses)) == 3
    setup.key = jax.random.key(7)
    assert float(setup.steps("shard_map", 1, 1)[0][1]["loss"]) != losses[0]


def test_devices_have_dropout_masks_of_their_own(tmp_path):
    setup = Setup("recall", tmp_path, model__cell="rnn", model__embedding_dropout=0.5)
    one, eight = (setup.steps("shard_map", devices, 1)[0][1]["loss"] for devices in (1, 8))
    assert np.isfinite(eight)
    assert not np.allclose(one, eight, atol=1e-6)


def test_batch_that_devices_do_not_divide():
    with pytest.raises(ConfigError, match=r"batch_size is 12.*multiple of 8"):
        choose_devices(0, 12)
    assert len(choose_devices(4, 12)) == 4
    assert len(choose_devices(0, 16)) == 8


@pytest.mark.parametrize("given", [9, -1])
def test_number_of_devices_out_of_range(given):
    with pytest.raises(ConfigError, match=rf"num_devices is {given}; expected 0 .* 8"):
        choose_devices(given, 72)


def rates(count, **changes):
    """The learning rate of each step: under a constant gradient, Adam's update is -rate exactly."""
    optimizer = make_optimizer(tiny(**changes).train)
    params = {"w": jnp.ones(())}
    state, found = optimizer.init(params), []
    for _ in range(count):
        updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
        found.append(-float(updates["w"]))
    return np.array(found)


SCHEDULED = {"train__learning_rate": 0.5, "train__steps": 10}


def test_constant_rate_after_warmup():
    np.testing.assert_allclose(rates(3, **SCHEDULED), [0.5] * 3, rtol=1e-3)
    warm = rates(6, train__warmup_steps=4, **SCHEDULED)
    np.testing.assert_allclose(warm, [0, 0.125, 0.25, 0.375, 0.5, 0.5], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decaying_rate_ends_at_zero(schedule):
    found = rates(11, train__schedule=schedule, train__warmup_steps=2, **SCHEDULED)
    part = np.arange(9) / 8
    falling = 0.5 * (1 + np.cos(np.pi * part)) if schedule == "cosine" else 1 - part
    np.testing.assert_allclose(found, [0, 0.25, *(0.5 * falling)], rtol=1e-3, atol=1e-6)
    assert found[-1] == pytest.approx(0, abs=1e-7)


def test_adamw_decays_weights_in_proportion():
    config = tiny(train__optimizer="adamw", train__weight_decay=0.1, train__learning_rate=0.5)
    optimizer = make_optimizer(config.train)
    params = {"w": jnp.array([2.0, -4.0])}
    updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
    np.testing.assert_allclose(optax.apply_updates(params, updates)["w"], [1.9, -3.8], rtol=1e-6)


def test_state_is_all_that_a_run_needs(tmp_path):
    """A step from a state that went through the host is the step from the state itself."""
    setup = Setup("formal", tmp_path, model__cell="rnn")
    step = make_step(setup.problem, nnx.graphdef(setup.model), setup.optimizer, setup.config.train)
    state, _ = step(initial_state(setup.model, setup.optimizer, setup.key), None)
    stored = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    straight, _ = step(state, None)
    copied, _ = step(TrainState(*stored)._replace(key=jax.random.wrap_key_data(stored.key)), None)
    assert_same(copied.params, jax.device_get(straight.params))


def test_the_average_of_the_parameters():
    """Weights of the steps by hand: the first ones are forgotten faster than by the decay alone."""
    values = np.array([2.0, -1.0, 4.0, 3.0])
    expected = 10.0  # what it began with
    average = {"w": jnp.float32(expected)}
    for step, value in enumerate(values):
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        average = averaged(average, {"w": jnp.float32(value)}, step, 0.25)
    np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    assert averaged(None, {}, 0, 0.0) is None


def test_a_run_evaluates_the_average_that_its_steps_make(tmp_path):
    setup = Setup("formal", tmp_path, train__average_decay=0.5)
    state = initial_state(setup.model, setup.optimizer, setup.key, averaged=True)
    step = make_step(setup.problem, nnx.graphdef(setup.model), setup.optimizer, setup.config.train)
    expected = jax.device_get(state.params)  # the step uses up the state
    for number in range(3):
        state, _ = step(state, None)
        expected = averaged(expected, jax.device_get(state.params), number, 0.5)
    assert_same(state.final_params, expected)
    assert state._replace(average=None).final_params is state.params


def test_label_smoothing():
    rng = np.random.default_rng(0)
    logits, labels, weights = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0]), np.array([1, 1, 0, 2, 1.0])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = 0.9 * np.eye(3)[labels] + 0.1 / 3
    expected = -(weights * (target * log_p).sum(axis=1)).sum()
    sums = classification_sums(jnp.asarray(logits), labels, weights, np.ones(5), smoothing=0.1)
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-5)


def test_weight_dropout_drops_recurrent_weights_alone():
    params = {"layer": {"recurrent_kernel": jnp.ones((40, 50)), "input_kernel": jnp.ones((3, 4))}, "head": jnp.ones(2)}
    dropped = drop_weights(params, jax.random.key(0), 0.25)
    weights = np.asarray(dropped["layer"].pop("recurrent_kernel"))
    np.testing.assert_allclose(np.unique(weights), [0, 4 / 3], rtol=1e-6)
    assert 0.7 < np.mean(weights > 0) < 0.8
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(dropped))
    with pytest.raises(ConfigError, match="expected 0 for a model without"):
        drop_weights({"head": jnp.ones(2)}, jax.random.key(0), 0.25)


def test_a_step_with_weight_dropout_is_one_with_other_weights(tmp_path):
    """A rate so high that no recurrent weight is left: their gradient is 0, that of the others is not."""
    setup = Setup("text", tmp_path, train__weight_dropout=1 - 1e-9, train__optimizer="adam")
    before = jax.device_get(initial_state(setup.model, setup.optimizer, setup.key).params)
    after = setup.steps("shard_map", 1, 1)[0][0]
    same = jax.tree_util.tree_map_with_path(lambda path, a, b: (path[-1].key, np.array_equal(a, b)), before, after)
    same = dict(jax.tree.leaves(same, is_leaf=lambda leaf: isinstance(leaf, tuple)))
    assert same["recurrent_kernel"] and not same["input_kernel"]
