"""Language modelling: the carry from window to window, what is measured, runs and what they write."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qlstm_jax.commands import programs
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.windows import Window
from qlstm_jax.problems import FormalProblem, LMProblem
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks
from qlstm_jax.training.beginning import run_keys
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.loop import train
from qlstm_jax.training.step import device_step, initial_state, make_optimizer
from tests.commands.calls import call, mistake
from tests.training.conftest import assert_same, read_metrics, tiny

# 1,000 bytes: 16 streams of 50 in the training part, so that a pass is 6 windows of 8.
LM = {"lm__length": 8, "lm__validation": 0.1, "lm__test": 0.1, "model__cell": "lstm"}


def write_text(folder, size=1000, seed=0):
    words = ["def ", "return ", "x = 1\n", "(a, b):\n", "naïve ", "    "]
    text = "".join(np.random.default_rng(seed).choice(words, size=size))
    (folder / "text.txt").write_bytes(text.encode()[:size])
    return folder / "text.txt"


def lm(folder, **changes):
    path = folder / "text.txt"
    return tiny("lm", **{**LM, "lm__path": str(path if path.exists() else write_text(folder)), **changes})


def make(folder, **changes):
    """(problem, model in evaluation mode)."""
    problem = LMProblem(lm(folder, **changes), folder / "run")
    model = problem.model(nnx.Rngs(params=jax.random.key(0)))
    model.eval()
    return problem, model


def test_a_uniform_model_takes_eight_bits_a_byte(tmp_path):
    problem, model = make(tmp_path)
    model.head.kernel[...] = 0 * model.head.kernel[...]
    figures = problem.validate(model, None)
    assert figures["bits_per_byte"] == pytest.approx(8, abs=1e-5)
    assert figures["perplexity"] == pytest.approx(256, rel=1e-5)
    assert figures["loss"] == pytest.approx(math.log(256), abs=1e-6)


def test_figures_from_a_carry(tmp_path):
    problem, model = make(tmp_path)
    start = problem.initial_carry(model, problem.windows("test").batch_size)
    figures = problem.figures(model, "test", 99)
    assert problem.figures(model, "test", 99, start) == figures
    other = problem.figures(model, "test", 99, jax.tree.map(lambda a: a + 0.7, start))
    assert abs(other["loss"] - figures["loss"]) > 1e-3


def test_bits_per_byte_of_longer_tokens(tmp_path):
    problem, model = make(tmp_path, lm__tokenizer="bpe", lm__vocab_size=270)
    model.head.kernel[...] = 0 * model.head.kernel[...]
    tokens, content = problem.tokens["test"], b"".join(problem.contents["test"])
    assert len(tokens) < len(content) and problem.tokenizer.decode(tokens).encode() == content
    vocab = problem.tokenizer.vocab_size
    expected = math.log2(vocab) * len(tokens) / len(content)
    assert problem.figures(model, "test", 99)["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert {p.name for p in (tmp_path / "run" / "lm").iterdir()} == {"tokenizer.json", "corpus.json"}
    configs.save(problem.config, tmp_path / "run" / "config.json")
    write_text(tmp_path, seed=1)
    again = LMProblem(problem.config, tmp_path / "run")
    assert again.tokenizer == problem.tokenizer


def test_what_a_start_that_was_cut_off_left_behind_is_not_read(tmp_path):
    """It kept its vocabulary and its corpus, but had not come to save its config."""
    make(tmp_path, lm__tokenizer="bpe", lm__vocab_size=260)
    write_text(tmp_path, seed=2)
    problem, _ = make(tmp_path, lm__tokenizer="bpe", lm__vocab_size=270)
    assert problem.tokenizer.vocab_size == 270 and len(problem.tokens["train"])


def read(problem, model, params, batch, carry):
    graphdef = nnx.graphdef(model)
    sums, carry = problem.continued_loss(nnx.merge(graphdef, params), batch, nnx.Rngs(0), carry)
    return sums["loss"], carry


def test_two_windows_are_one_of_double_length(tmp_path):
    """In loss and in what is handed on; but the gradient of the second ends where it begins."""
    problem, model = make(tmp_path)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    first, second = (problem.windows("train").batch(n) for n in (0, 1))
    joined = Window(np.concatenate([first.tokens, second.tokens[:, 1:]], axis=1), first.starts)
    start = problem.initial_carry(model, 16)

    @jax.jit
    def both(params):
        one, carry = read(problem, model, params, first, start)
        two, end = read(problem, model, params, second, carry)
        whole, last = read(problem, model, params, joined, start)
        return one, two, whole, carry, end, last

    one, two, whole, carry, end, last = jax.device_get(both(params))
    np.testing.assert_allclose(one + two, whole, rtol=1e-6)
    assert_same(end, last, 1e-6)
    state = initial_state(model, optax.sgd(0.0), jax.random.key(0), carry)
    step = jax.jit(
        lambda state, batch: device_step(problem, nnx.graphdef(model), optax.sgd(0.0), 16, state, batch, None)
    )
    state, metrics = step(state, second)
    assert_same(jax.device_get(state.carry), end, 1e-6)
    assert metrics["loss"] == pytest.approx(two / 128, rel=1e-5)
    alone = jax.jit(jax.grad(lambda p: read(problem, model, p, second, carry)[0] / 128))(params)
    through = jax.jit(jax.grad(lambda p: both(p)[1] / 128))(params)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(alone)), rel=1e-5)
    assert abs(metrics["grad_norm"] - float(optax.tree.norm(through))) > 1e-4


def test_a_stream_that_begins_again_drops_the_carry(tmp_path):
    problem, model = make(tmp_path)
    windows = problem.windows("train")
    assert windows.per_pass == 6
    carry = jax.tree.map(lambda a: a + 0.7, problem.initial_carry(model, 16))
    fresh = jax.jit(lambda batch: problem.loss(model, batch, None)["loss"])
    continued = jax.jit(lambda batch: problem.continued_loss(model, batch, None, carry)[0]["loss"])
    for number in (0, 5, 6):
        batch = windows.batch(number)
        assert np.allclose(fresh(batch), continued(batch), rtol=1e-6) == (number != 5)


def test_rows_drop_their_carry_in_turn_in_training_alone(tmp_path):
    problem, model = make(tmp_path, lm__restart=2)
    assert not problem.windows("validation").restart and not problem.windows("test").restart
    batch = problem.windows("train").batch(1)
    assert batch.starts.tolist() == [False] * 8 + [True] * 8
    carry = jax.tree.map(lambda a: a + 0.7, problem.initial_carry(model, 16))
    partly = jax.tree.map(lambda a: a.at[8:].set(0), carry)  # zeros are where an LSTM begins
    read = jax.jit(lambda starts, carry: problem.continued_loss(model, batch._replace(starts=starts), None, carry)[0])
    none = np.zeros(16, bool)
    dropped, given, kept = (float(read(*a)["loss"]) for a in ((batch.starts, carry), (none, partly), (none, carry)))
    assert dropped == pytest.approx(given, rel=1e-6) and abs(dropped - kept) > 1e-3


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Stopped in the middle of a pass; the streams begin again after step 6."""
    config = {"train__select": "best", "train__eval_every": 2, "train__learning_rate": 0.03, "model__dropout": 0.3}
    train(lm(tmp_path, train__steps=8, **config), tmp_path / "straight")
    train(lm(tmp_path, train__steps=4, **config), tmp_path / "twice")
    train(lm(tmp_path, train__steps=8, **config), tmp_path / "twice")

    def state(name, best=False):
        problem, model = make(tmp_path, **config)
        checkpoints = Checkpoints(tmp_path / name, select=problem.select, mode=problem.select_mode)
        optimizer = make_optimizer(problem.config.train)
        like = initial_state(model, optimizer, run_keys(0)[1], problem.initial_carry(model, 16))
        found = checkpoints.restore(like, best=best)
        checkpoints.close()
        return jax.device_get(found._replace(key=jax.random.key_data(found.key)))

    straight = state("straight")
    assert_same(state("twice"), straight)
    assert straight.step == 8 and max(np.abs(a).max() for a in jax.tree.leaves(straight.carry)) > 0.01
    figures = {r["step"]: r["bits_per_byte"] for r in read_metrics(tmp_path / "straight") if r["split"] == "validation"}
    assert len(set(figures.values())) == 4
    assert state("straight", best=True).step == min(figures, key=figures.get)


@pytest.fixture(scope="module")
def lm_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    train(lm(folder), folder / "run")
    return folder / "run"


def test_report(lm_run):
    report = evaluate(lm_run)
    assert report == json.loads((lm_run / "eval" / "report.json").read_text())
    assert (report["task"], report["part"], report["test_tokens"], report["test_bytes"]) == ("lm", "test", 100, 100)
    assert report["bits_per_byte"] == pytest.approx(report["loss"] / math.log(2))
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))
    assert list(report["bits_per_byte_by_position"]) == ["1", "2", "4", "8", "16", "32"]
    assert (lm_run / "eval" / "bits_per_byte_by_position.png").stat().st_size > 5000
    sample = (lm_run / "eval" / "sample.txt").read_text(encoding="utf-8")
    assert sample.startswith(report["sample_prompt"]) and len(sample.encode()) >= 64 + 400
    assert "text.txt: 1 files, 1000 bytes" in report["corpus"]


def test_by_position_is_the_loss_of_each_token(tmp_path):
    problem, model = make(tmp_path)
    ids = problem.tokens["test"].astype(np.int32)
    curve = problem.by_position(model, "test", 10**6)
    assert curve.shape == (32,)
    rows = np.stack([ids[r * 33 : r * 33 + 33] for r in range(3)])  # 100 tokens: 3 contexts of 32 and their targets
    chances = jax.nn.log_softmax(model(rows[:, :-1]))
    nats = -np.take_along_axis(np.asarray(chances), rows[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(curve, nats.mean(0) / np.log(2), rtol=1e-4)


def test_writing_without_the_text(lm_run, tmp_path):
    workdir = tmp_path / "moved"
    shutil.copytree(lm_run, workdir)
    path = workdir / "config.json"
    path.write_text(path.read_text().replace("text.txt", "gone.txt"))
    _, problem, model, _ = restore(workdir)
    texts = problem.generate(model, ["def ", "☃"], 5, jax.random.key(0), temperature=0)
    assert texts[0].startswith("def ") and texts[1].startswith("☃")
    alone = problem.generate(model, ["☃"], 5, jax.random.key(0), temperature=0)
    assert alone == texts[1:]
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        evaluate(workdir)


def test_another_text_than_the_run_began_with(tmp_path):
    problem, _ = make(tmp_path)
    configs.save(problem.config, tmp_path / "run" / "config.json")
    write_text(tmp_path, seed=1)
    again = LMProblem(problem.config, tmp_path / "run")
    with pytest.raises(DataError, match=r"trained on another text .* than is there now"):
        again.stream(0)


def test_a_run_that_could_not_start_can_be_mended(tmp_path):
    with pytest.raises(DataError, match=r"train part of lm has 800 tokens; expected at least 1616"):
        train(lm(tmp_path, lm__length=100), tmp_path / "run")
    assert not (tmp_path / "run" / "lm").exists() and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__bidirectional": True}, "model.bidirectional is True; expected False"),
        ({"model__cell": "transformer"}, "model.transformer.causal is False; expected True"),
        ({"model__cell": "pr_lstm", "model__pr_lstm__max_offset": 3}, "max_offset is 3; expected 0"),
        ({"lm__validation": 0.0}, "lm.validation is 0.0"),
        ({"lm__validation": 0.5, "lm__test": 0.5}, "together are below 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_checks.check(tiny("lm", **{**LM, **changes}))


def test_a_layer_without_a_carry(tmp_path):
    causal = {"model__transformer__causal": True, "model__transformer__num_heads": 2}
    config = lm(tmp_path, model__cell="transformer", train__steps=1, train__eval_every=1, **causal)
    result = train(config, tmp_path / "run")
    assert np.isfinite(result["bits_per_byte"])
    _, problem, model, _ = restore(tmp_path / "run")
    assert problem.initial_carry(model, 16) is None
    # Nothing goes from one window to the next: the figure is the mean over windows that are read each by itself.
    windows = problem.windows("validation")
    batches = [windows.batch(n) for n in range(windows.per_pass)]
    loss = nnx.jit(lambda model, batch: problem.loss(model, batch, None))
    losses = [loss(model, jax.tree.map(jnp.asarray, b)) for b in batches]
    mean = sum(float(s["loss"]) for s in losses) / sum(float(s["weight"]) for s in losses)
    assert result["loss"] == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(
    ("prompt", "steps", "options", "message"),
    [
        ("", 3, {}, "--prompt is ''"),
        ("a", 0, {}, "--tokens is 0"),
        ("a", 3, {"temperature": -1.0}, "--temperature is -1.0"),
        ("a", 3, {"top_k": -1}, "--top_k is -1"),
        ("a", 3, {"top_p": 0.0}, "--top_p is 0.0"),
    ],
)
def test_mistakes_in_what_to_write(prompt, steps, options, message, tmp_path):
    problem, model = make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        problem.generate(model, ["b", prompt], steps, jax.random.key(0), **options)


def test_only_language_models_write(tmp_path):
    with pytest.raises(ConfigError, match="FormalProblem generates no text; train on problem='lm'"):
        FormalProblem(tiny(), tmp_path).generate(None, ["a"], 1, jax.random.key(0))


def test_generate_command(lm_run):
    options = [f"--workdir={lm_run}", "--prompt=def 👍", "--tokens=5", "--num=2", "--top_k=5", "--top_p=0.9"]
    done = call(programs.generate, *options, "--set", "lm.length=4", encoding="cp1252")
    assert done.code == 0, done.err
    assert done.out.count("\ndef \\U0001f44d") == 2 and done.out.startswith("--- 1 of 2\n")
    assert "tokens/s, compilation excluded" in done.out.splitlines()[-1]
    said = {"--tokens=0": "--tokens is 0", "--top_k=-1": "--top_k is -1", "--prompt=": "--prompt is ''"}
    for option, part in (said | {"--set=lm.length=0": "lm.length is 0; expected more than 0"}).items():
        line, code = mistake(programs.generate, f"--workdir={lm_run}", option)
        assert part in line and code == 1
