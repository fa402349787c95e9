"""Checkpoints by themselves: what is read where files are damaged."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.faults import WorkdirError
from qlstm_jax.training.step import TrainState
from tests.training.conftest import assert_same


def state(step, seed=0):
    """A state that tells its step by its parameters."""
    params = {"w": jnp.arange(6.0) + step, "b": {"c": jnp.full((2, 3), float(step))}}
    return TrainState(jnp.int32(step), params, {"m": jnp.zeros(2)}, jax.random.key(seed))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1 and 2, and the best of step 2."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(state(step))
    checkpoints.save_if_best(state(2), {"accuracy": 0.5})
    checkpoints.close()
    return folder


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


DAMAGE = {
    "cut": lambda folder: [p.write_bytes(p.read_bytes()[:-9]) for p in folder.rglob("d/*")],
    "zeros": lambda folder: [p.write_bytes(bytes(p.stat().st_size)) for p in folder.rglob("d/*")],
    "no list of arrays": lambda folder: (folder / "default/_METADATA").unlink(),
    "no content": lambda folder: shutil.rmtree(folder / "default"),
    "nothing": lambda folder: [p.unlink() for p in folder.rglob("*") if p.is_file()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kind, saved, tmp_path, capfd):
    run = shutil.copytree(saved, tmp_path / "run")
    DAMAGE[kind](run / "checkpoints/2")
    reading = Checkpoints(run, read_only=True)
    assert_same(reading.restore(state(0)).params, state(1).params)
    assert len(reading.notes) == 1 and "\n" not in reading.notes[0]
    assert "checkpoints/2 cannot be read (" in reading.notes[0] and "taking step 1" in reading.notes[0]
    assert capfd.readouterr().err == ""  # nor pages from the libraries below
    # A run that goes on sets it aside and saves that step anew.
    writing = Checkpoints(run)
    assert int(writing.restore(state(0)).step) == 1
    writing.save(state(2))
    writing.close()
    assert [p.name for p in (run / "damaged").iterdir()] == ["checkpoints-2-0"]
    assert_same(Checkpoints(run, read_only=True).restore(state(0)).params, state(2).params)


def test_content_that_is_not_what_was_saved_is_known(saved, tmp_path):
    """Files of another checkpoint are whole, and so is what a flipped bit in uncompressed numbers leaves."""
    run = shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/2")
    shutil.copytree(run / "checkpoints/1", run / "checkpoints/2")
    checkpoints = Checkpoints(run, read_only=True)
    assert int(checkpoints.restore(state(0)).step) == 1
    assert "it is of step 1" in checkpoints.notes[0]
    with pytest.raises(WorkdirError, match=r"no checkpoint that can be read \(step 2: .*of another seed; step 1"):
        Checkpoints(saved, read_only=True).restore(state(0, seed=1))


def test_nothing_that_can_be_read_is_refused(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    for path in run.glob("*/*/default/manifest.ocdbt"):
        path.write_bytes(b"")
    for best, remedy in (
        (False, "delete the run's folder to train anew"),
        (True, "--checkpoint=last takes the latest"),
    ):
        with pytest.raises(WorkdirError, match=remedy) as caught:
            Checkpoints(run, read_only=True).restore(state(0), best=best)
        assert "\n" not in str(caught.value) and str(run) in str(caught.value)


def test_a_best_one_that_cannot_be_read_is_set_aside(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    largest(run / "best/2/default").write_bytes(b"")
    checkpoints = Checkpoints(run)
    checkpoints.check_best(state(0))
    assert "best holds no checkpoint that can be read" in checkpoints.notes[0]
    checkpoints.save_if_best(state(3), {"accuracy": 0.1})  # worse than the one that is lost
    checkpoints.close()
    assert int(Checkpoints(run, read_only=True).restore(state(0), best=True).step) == 3


def test_reading_leaves_nothing_behind(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", read_only=True).restore(state(0)) is None
    assert list(tmp_path.iterdir()) == []


def test_leaves_are_those_that_were_saved(saved):
    found = Checkpoints(saved, read_only=True).restore(state(0))
    assert found.key == state(2).key and np.array_equal(found.opt_state["m"], [0, 0])


def test_what_is_left_of_an_earlier_best_one_is_deleted(saved, tmp_path):
    """A run that is killed after it saved a better one leaves the one before, or half of it."""
    run = shutil.copytree(saved, tmp_path / "run")
    (run / "best/1").mkdir()
    checkpoints = Checkpoints(run)
    checkpoints.check_best(state(0))
    checkpoints.close()
    assert [p.name for p in (run / "best").iterdir()] == ["2"] and checkpoints.notes == []
