"""Runs on meshes of devices: the same course as on one device, with parameters and optimiser in parts."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from qlstm_jax import problems, shardings
from qlstm_jax.studies.cohort import Trainer
from qlstm_jax.training import config_checks
from qlstm_jax.training.beginning import expected, first_state, initial, run_keys, static_model
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.loop import train
from qlstm_jax.training.meshes import make_mesh, make_step, using
from qlstm_jax.training.step import make_optimizer
from qlstm_jax.training.warm_start import warm_start
from tests.training.conftest import assert_same, read_metrics, tiny, write_reviews

CLIP = 0.05  # must bite, or a gradient that is wrong by a factor would pass unseen: Adam does not see the scale
# A cell of each kind; with dropout, whose masks a mesh must not change.
RUNS = {
    "formal": {"model__cell": "pr_lstm", "model__dropout": 0.2},
    "recall": {"model__cell": "ql_lstm", "model__embedding_dropout": 0.2},
    "text": {"model__cell": "lstm", "model__pooling": "mean", "model__num_layers": 2, "model__dropout": 0.2},
    "lm": {"model__cell": "mlstm", "lm__length": 4, "lm__validation": 0.1, "lm__test": 0.1, "model__num_layers": 2},
}


def config_of(kind, folder, mesh="", **changes):
    """A tiny config of a problem, whose data stand in the folder."""
    if kind == "text":
        changes["text__path"] = str(write_reviews(folder / "reviews.tsv"))
    if kind == "lm":
        # 16 streams of 13 tokens: the third of three windows is followed by the first, without the carry.
        changes["lm__path"] = str(folder / "text.txt")
        (folder / "text.txt").write_bytes(np.random.default_rng(0).integers(97, 123, 260).astype(np.uint8))
    fixed = {"train__clip_norm": CLIP, "train__num_devices": 0 if mesh else 1, "parallel__mesh": mesh}
    return tiny("parity_check" if kind == "formal" else kind, **RUNS[kind] | fixed | changes)


class Setup:
    """A run without its loop."""

    def __init__(self, config, folder):
        self.config, self.mesh = config, make_mesh(config)
        self.problem = problems.make(config, folder)
        self.optimizer, self.keys = make_optimizer(config.train), run_keys(config.seed)
        self.make = partial(first_state, self.problem, config, self.optimizer)

    def state(self):
        return initial(self.make, self.keys, self.mesh)

    def steps(self, count):
        """(the metrics of each step, the state after the last)."""
        model = static_model(self.problem)
        model.train()
        step = make_step(self.problem, nnx.graphdef(model), self.optimizer, self.config.train, self.mesh)
        state, figures = self.state(), []
        batches = None if self.problem.on_device else self.problem.stream(0)
        for _ in range(count):
            state, metrics = step(state, None if batches is None else next(batches))
            figures.append(jax.device_get(metrics))
        return figures, state


@pytest.mark.parametrize("kind", RUNS)
def test_a_mesh_changes_nothing_of_a_course(kind, tmp_path):
    one, state = Setup(config_of(kind, tmp_path), tmp_path / "run").steps(5)
    assert one[4]["grad_norm"] > CLIP
    for mesh in ("data:2,fsdp:4", "fsdp:2", "data:8"):
        many, cut = Setup(config_of(kind, tmp_path, mesh), tmp_path / "run").steps(5)
        assert_same(many, one, 1e-5)
        assert_same(jax.device_get((cut.params, cut.carry)), jax.device_get((state.params, state.carry)), 3e-5)


def test_jit_without_a_mesh_cuts_the_batch_over_all_devices(tmp_path):
    config = config_of("formal", tmp_path, train__mapping="jit", train__num_devices=0)
    assert dict(make_mesh(config).shape) == {"data": 8}


def bytes_of(tree, device):
    return sum(s.data.nbytes for a in jax.tree.leaves(tree) for s in a.addressable_shards if s.device == device)


def test_each_device_holds_its_part_of_parameters_and_optimiser(tmp_path):
    config = config_of("recall", tmp_path, "fsdp:8", model__cell="lstm", model__hidden_size=32)
    config.recall.num_noise, config.recall.num_classes, config.model.embedding_size = 8, 8, 16
    config.train.average_decay = 0.5
    setup = Setup(config, tmp_path / "run")
    for state in (setup.state(), setup.steps(2)[1]):
        held = state.params, state.opt_state, state.average
        whole = sum(a.nbytes for a in jax.tree.leaves(held))
        assert whole > 80_000
        for device in jax.devices():
            assert bytes_of(held, device) <= 1.05 * whole / 8


def test_an_axis_that_divides_is_cut_the_largest_first():
    mesh = jax.sharding.AbstractMesh((2, 4), ("data", "fsdp"))
    shapes = {(8, 16): P(None, ("fsdp",)), (16, 16): P(("fsdp",)), (8, 17): P(("fsdp",)), (7, 9): P(), (): P()}
    assert {shape: shardings.weights_spec(mesh, shape) for shape in shapes} == shapes
    assert shardings.rows_spec(mesh) == P(("data", "fsdp"))
    alone = jax.sharding.AbstractMesh((8,), ("data",))
    assert shardings.weights_spec(alone, (8, 8)) == P() and shardings.rows_spec(alone) == P(("data",))


def test_what_maps_devices_by_hand_and_meshes_of_others_are_left_alone():
    """In shard_map, on a mesh with Explicit axes or with axes of other names, nothing is constrained."""
    x = jnp.ones((8, 2))
    mine = jax.make_mesh((8,), ("data",))  # Explicit, as jax makes them
    others = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    for mesh in (mine, others):
        with jax.set_mesh(mesh):
            assert str(jax.make_jaxpr(shardings.split_rows)(x)).count("sharding_constraint") == 0
    ours = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    mapped = jax.shard_map(shardings.split_rows, mesh=ours, in_specs=P("data"), out_specs=P("data"))
    assert str(jax.make_jaxpr(mapped)(x)).count("sharding_constraint") == 0
    with jax.set_mesh(ours):
        assert str(jax.make_jaxpr(shardings.split_rows)(x)).count("sharding_constraint") == 1


def test_a_checkpoint_goes_from_any_mesh_to_any_other(tmp_path):
    meshes = ("fsdp:8", "data:2,fsdp:4", "data:2", "")
    setups = {mesh: Setup(config_of("lm", tmp_path, mesh), tmp_path / "run") for mesh in meshes}
    for place, start in enumerate(("fsdp:8", "")):
        _, saved = setups[start].steps(1)
        checkpoints = Checkpoints(tmp_path / str(place))
        checkpoints.save(saved)
        checkpoints.close()
        for setup in setups.values():
            like = expected(setup.make, setup.keys, setup.mesh)
            found = Checkpoints(tmp_path / str(place), read_only=True).restore(like)
            assert_same(*(jax.device_get(s._replace(key=jax.random.key_data(s.key))) for s in (found, saved)))
            for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(like.params), strict=True):
                assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


def test_a_run_goes_on_and_is_evaluated_on_another_mesh(tmp_path):
    def config(steps, mesh):
        return config_of("formal", tmp_path, mesh, train__steps=steps, model__dropout=0.0, train__select="best")

    straight = train(config(8, ""), tmp_path / "one")
    train(config(4, "data:2,fsdp:4"), tmp_path / "many")
    result = train(config(8, "fsdp:2"), tmp_path / "many")
    assert result == pytest.approx(straight, abs=1e-5)
    losses = [[r["loss"] for r in read_metrics(tmp_path / run) if "loss" in r] for run in ("one", "many")]
    np.testing.assert_allclose(*losses, atol=1e-5)
    # Of a run on a mesh, eval.py evaluates on it, or where it is told, and a model in Python lies on one device.
    report = evaluate(tmp_path / "many")
    assert report == evaluate(tmp_path / "many", settings={"parallel.mesh": ""})
    _, _, model, step = restore(tmp_path / "many")
    assert step == 8 and {len(a.devices()) for a in jax.tree.leaves(nnx.state(model, nnx.Param))} == {1}


def test_every_device_evaluates_its_rows(tmp_path):
    """The program of an evaluation holds an eighth of the batch's activations on each device."""
    config = config_of("recall", tmp_path, "data:8", model__cell="lstm", recall__length=64)
    setup = Setup(config, tmp_path / "run")
    model = static_model(setup.problem)
    model.eval()
    graphdef, params, key = nnx.graphdef(model), jax.device_get(setup.state().params), jax.random.key(0)

    def temporary(mesh):
        with using(mesh):
            rows = setup.problem._rows.lower(graphdef, params, key, batch_size=256, length=64)
            return rows.compile().memory_analysis().temp_size_in_bytes

    assert temporary(setup.mesh) < 0.5 * temporary(None)


@pytest.mark.parametrize("kind", RUNS)
def test_validation_on_a_mesh_is_that_of_one_device(kind, tmp_path):
    figures = []
    for mesh in ("", "data:2,fsdp:4"):
        setup = Setup(config_of(kind, tmp_path, mesh), tmp_path / "run")
        model = nnx.merge(nnx.graphdef(static_model(setup.problem)), jax.device_get(setup.state().params))
        model.eval()
        with using(setup.mesh):
            figures.append(setup.problem.validate(model, setup.keys[2]))
    assert figures[1] == pytest.approx(figures[0], abs=1e-5)


def test_a_run_begins_with_the_weights_of_one_on_a_mesh(tmp_path):
    train(config_of("formal", tmp_path, "fsdp:8"), tmp_path / "many")
    config = config_of("formal", tmp_path, train__init_from=str(tmp_path / "many"))
    setup = Setup(config, tmp_path / "run")
    state, lines = warm_start(setup.state(), config, setup.problem)
    _, _, model, _ = restore(tmp_path / "many")
    assert_same(state.params, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert "of step 4" in lines[0]


@pytest.mark.parametrize(
    ("mesh", "changes", "message"),
    [
        ("data", {}, "expected AXIS:SIZE"),
        ("data:0", {}, "expected AXIS:SIZE"),
        ("data:2,", {}, "expected AXIS:SIZE"),
        ("data:2,data:2", {}, "'data' twice"),
        ("rows:2", {}, "axis 'rows'; expected data or fsdp"),
        ("data:2,model:2", {}, "'model' would only repeat the work"),
        ("time:2", {}, "'time' would only repeat the work"),
        ("data:2", {"train__mapping": "pmap"}, "mapping is 'pmap'.*expected mapping jit"),
        ("data:2", {"train__mapping": "shard_map"}, "mapping is 'shard_map'.*expected mapping jit"),
        ("data:2", {"train__num_devices": 4}, "num_devices is 4 .* of 2 devices; expected 0"),
    ],
)
def test_a_mesh_that_cannot_be(mesh, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_checks.check(tiny(**{"train__num_devices": 0} | changes, parallel__mesh=mesh))


def test_a_mesh_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="of 16 devices; expected at most 8"):
        make_mesh(tiny(train__num_devices=0, parallel__mesh="data:4,fsdp:4"))
    with pytest.raises(ConfigError, match="batch_size is 12; expected a multiple of 8"):
        make_mesh(tiny(train__num_devices=0, train__batch_size=12, parallel__mesh="data:8"))
    with pytest.raises(ConfigError, match=r"multiple of 32, .* times train\.accumulate, 4"):
        train(tiny(train__num_devices=0, train__accumulate=4, parallel__mesh="data:8"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = tiny(parallel__mesh="data:8")
    with pytest.raises(ConfigError, match="whole seeds go to the local devices"):
        Trainer(problems.make(config, tmp_path), config)


def test_a_mesh_stands_in_the_config_of_a_run(tmp_path):
    train(config_of("formal", tmp_path, "data:2"), tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["parallel"]["mesh"] == "data:2"
