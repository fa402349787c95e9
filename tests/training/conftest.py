"""Runs small enough for a test: what takes time here is compiling, so sizes are tiny and each test trains seldom."""

import json
import struct

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tensorboardX.proto.event_pb2 import Event

from qlstm_jax.problems import PROBLEMS
from qlstm_jax.training import config as configs

TINY = {
    "formal.max_length": 4,
    "recall.length": 4,
    "recall.num_classes": 3,
    "recall.num_noise": 3,
    "text.max_length": 8,
    "text.num_buckets": 1,
    "text.min_frequency": 1,
    "text.validation": 0.2,
    "text.test": 0.2,
    "model.cell": "rnn",  # compiles fastest
    "model.hidden_size": 8,
    "model.embedding_size": 8,
    "model.ql_lstm.block_size": 4,
    "train.steps": 4,
    "train.batch_size": 16,
    "train.log_every": 2,
    "train.eval_every": 4,
    "train.checkpoint_every": 4,
    "train.num_devices": 1,
    "eval.min_length": 7,
    "eval.max_length": 9,
    "eval.sequences": 8,
}


@pytest.fixture(autouse=True, scope="module")
def compile_quickly(tmp_path_factory):
    """Arrays are tiny, so that a test's time is its compiling: each program once for all runs."""
    quick = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in quick}
    for values in (quick, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it looks at its folder when it is first used, and not again
        if values is quick:
            yield


def tiny(what="parity_check", **changes):
    """A config of a few steps for a problem or a formal language; `changes` are dotted keys with __ for the dot."""
    config = configs.default()
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    learnt = {"problem": what} if what in PROBLEMS else {"formal.task": what}
    config.update_from_flattened_dict({**TINY, **learnt, **changes})
    return config


def write_reviews(path, rows=60):
    """A tsv of two classes that one word in each text tells apart."""
    rng = np.random.default_rng(0)
    noise = ["the", "film", "plot", "was", "and", "actor"]
    telling = {"good": ["fine", "lovely"], "bad": ["awful", "dull"]}
    lines = ["text\tlabel"]
    for row in range(rows):
        label = ("good", "bad")[row % 2]
        words = [*rng.choice(noise, size=3), rng.choice(telling[label]), f"row{row}"]
        lines.append(f"{' '.join(rng.permutation(words))}\t{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def read_events(workdir):
    """(tag, step, value, time) of each scalar in a run's TensorBoard files."""
    events = []
    for path in sorted((workdir / "tensorboard").glob("*tfevents*")):
        content, place = path.read_bytes(), 0
        while place < len(content):  # a record: its length, a checksum, the event, a checksum
            (size,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + size])
            events += [(v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value]
            place += size + 16
    return events


def assert_same(a, b, tolerance=0.0):
    """Two pytrees are equal, or within an absolute tolerance."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=tolerance, err_msg=str(path))
