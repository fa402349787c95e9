"""Runs that begin with another run's weights, and parameters that stay as they are."""

import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore, restore_state
from qlstm_jax.training.freezing import frozen
from qlstm_jax.training.loop import train
from qlstm_jax.training.step import make_optimizer
from tests.training.conftest import assert_same, tiny, write_reviews

ONES = np.ones(2, np.float32)
PARAMS = {"embed": {"embedding": np.ones(3, np.float32)}, "layer": {"cells": {0: {"bias": ONES}}}, "head": ONES}


def flat(params):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize(
    ("patterns", "held"),
    [
        ("embed*", {"['embed']['embedding']"}),
        ("layer", {"['layer']['cells'][0]['bias']"}),
        ("*.bias, head", {"['layer']['cells'][0]['bias']", "['head']"}),
    ],
)
def test_patterns_of_paths(patterns, held):
    assert {name for name, is_held in flat(frozen(PARAMS, patterns)).items() if is_held} == held


@pytest.mark.parametrize(
    ("patterns", "message"),
    [("embed*,heads", "train.freeze names 'heads', which no parameter has; there are embed.embedding, head, layer"),
     ("*", "which is every parameter")],
)  # fmt: skip
def test_patterns_that_cannot_be(patterns, message):
    with pytest.raises(ConfigError, match=message):
        frozen(PARAMS, patterns)


def test_what_is_frozen_is_neither_moved_nor_decayed_nor_counted():
    config = tiny(train__freeze="head", train__optimizer="adamw", train__weight_decay=0.5, train__clip_norm=1.0)
    optimizer = make_optimizer(config.train)
    grads = jax.tree.map(lambda a: 1e3 * a, PARAMS) | {"head": np.full(2, 1e9, np.float32)}
    updates, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    moved = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(moved["head"], PARAMS["head"])
    assert np.all(moved["embed"]["embedding"] != 1)
    assert sum(a.size for a in jax.tree.leaves(state)) == 2 * 5 + 2  # two moments of five numbers, and two counts


def test_a_run_begins_with_anothers_weights(tmp_path, capsys):
    path = str(write_reviews(tmp_path / "reviews.tsv"))
    (tmp_path / "other.tsv").write_text((tmp_path / "reviews.tsv").read_text().replace("film", "movie"))
    config = tiny("text", text__path=path, train__steps=4, train__average_decay=0.5)
    train(config, tmp_path / "first")
    first = flat(nnx.to_pure_dict(nnx.state(restore(tmp_path / "first")[2], nnx.Param)))
    capsys.readouterr()

    second = tiny("text", text__path=str(tmp_path / "other.tsv"), train__steps=4, train__freeze="embed*,layer")
    second.train.init_from = str(tmp_path / "first")
    train(second, tmp_path / "second")
    shown = capsys.readouterr().out
    assert f"{len(first)} of {len(first)} arrays are those of step 4 of {tmp_path}/first" in shown
    now = flat(restore_state(tmp_path / "second")[3].params)
    assert {name for name in now if not np.array_equal(now[name], first[name])} == {
        "['head']['bias']",
        "['head']['kernel']",
    }
    tokenizers = [json.loads((tmp_path / name / "text/tokenizer.json").read_text()) for name in ("first", "second")]
    assert tokenizers[0] == tokenizers[1] and "film" in tokenizers[0]["vocab"]
    # It goes on from its own checkpoint, wherever the other run has gone.
    (tmp_path / "first").rename(tmp_path / "moved")
    second.train.steps = 6
    train(second, tmp_path / "second")
    assert "continuing from step 4 of 6" in capsys.readouterr().out
    assert_same(
        restore_state(tmp_path / "second")[3].params["layer"], restore_state(tmp_path / "moved")[3].average["layer"]
    )


def test_weights_that_do_not_fit(tmp_path, capsys):
    train(tiny("recall", train__steps=1), tmp_path / "recall")
    small = tiny(train__steps=1, model__hidden_size=4, train__init_from=str(tmp_path / "recall"))
    with pytest.raises(ConfigError, match="no array in common"):
        train(small, tmp_path / "formal")
    with pytest.raises(ConfigError, match=r"nowhere/config\.json does not exist"):
        train(tiny(train__init_from=str(tmp_path / "nowhere")), tmp_path / "formal2")
    # The layer of another problem can be handed on, its tokens and answers cannot.
    wider = tiny("mqar", mqar__length=8, mqar__num_pairs=1, train__steps=1, train__init_from=str(tmp_path / "recall"))
    capsys.readouterr()
    train(wider, tmp_path / "mqar")
    assert "begun anew: embed.embedding, head.bias, head.kernel" in capsys.readouterr().out


def test_a_run_that_diverged_says_so(tmp_path, capsys):
    train(tiny(train__steps=8, train__learning_rate=1e4, train__clip_norm=1e9), tmp_path)
    assert "diverged: the loss is" in capsys.readouterr().out
