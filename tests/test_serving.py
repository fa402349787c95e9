"""The HTTP example of docs/serving.md on a port of this machine, asked by the load script's own client."""

import asyncio
import contextlib
import importlib.util
import itertools
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from flax import nnx

import qlstm_jax
from qlstm_jax import models
from qlstm_jax.nnx import GRU, LSTM, PRLSTM

V, D, H = 11, 3, 4


def load(path):
    """A script as Python starts it: what stands beside it can be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


ROOT = Path(__file__).parents[1]
serve, serving = load(ROOT / "examples" / "serve.py"), load(ROOT / "benchmarks" / "serving.py")


@contextlib.contextmanager
def running(folder, capacity, **options):
    """(the server, its port), the server in a thread."""
    server = serve.Server(serve.Model(folder, capacity), **options)
    runner = uvicorn.Server(uvicorn.Config(server.app, port=0, log_level="error"))
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        end = time.monotonic() + 120
        while not runner.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert runner.started
        yield server, runner.servers[0].sockets[0].getsockname()[1]
    finally:
        runner.should_exit = True
        thread.join()


@contextlib.asynccontextmanager
async def connected(port):
    connection = await serving.Connection.open("127.0.0.1", port)
    yield connection
    await connection.close()


async def ask(port, *request):
    async with connected(port) as connection:
        return await connection.ask(*request)


def refused(port, *request):
    with pytest.raises(RuntimeError) as error:
        asyncio.run(ask(port, *request))
    return str(error.value).removeprefix(f"{request[0]} {request[1]}: ")


@pytest.fixture(scope="module")
def classifier():
    layer = GRU(D, H, rngs=nnx.Rngs(0))
    model = models.Classifier(V, 2, layer, embedding_size=D, pooling="mean_max", rngs=nnx.Rngs(1))
    model.eval()
    return model


@pytest.fixture(scope="module")
def served(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    about = {"labels": ["bad", "good"], "tokenizer": {"kind": "byte", "offset": -97}}  # "a" is 0
    qlstm_jax.export(classifier, folder, platforms=["cpu"], about=about)
    with running(folder, 3, batch=2, max_tokens=20, idle=1e9) as (server, port):
        yield server, port


def logits(model, ids):
    return np.asarray(model(np.asarray(ids, np.int32)[None], seq_lengths=np.array([len(ids)])))[0]


def test_predictions_of_many_requests_at_once_are_the_models(served, classifier):
    _, port = served
    texts = ["a", "bcd", "kjihgfedcba", "aaa", ""]

    async def ask_all():
        return await asyncio.gather(*(ask(port, "POST", "/predict", {"text": text}) for text in texts))

    for text, answer in zip(texts, asyncio.run(ask_all()), strict=True):
        expected = logits(classifier, [byte - 97 for byte in text.encode()])
        np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-6)
        chances = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose([answer["probabilities"][name] for name in ("bad", "good")], chances, atol=2e-6)
        assert answer["label"] == ["bad", "good"][int(np.argmax(expected))]


def test_streams_side_by_side_keep_their_own_state(served, classifier):
    """Three streams in batches of two, in pieces of different lengths; rows are used again by streams that begin."""
    server, port = served
    rng = np.random.default_rng(0)

    async def one(pieces):
        async with connected(port) as connection:
            path = f"/streams/{(await connection.ask('POST', '/streams'))['stream']}"
            answers = [await connection.ask("POST", path, {"inputs": piece}) for piece in pieces]
            assert await connection.ask("DELETE", path) is None
        return answers

    async def several(streams):
        return await asyncio.gather(*map(one, streams))

    for _ in range(2):
        streams = [[rng.integers(0, V, n).tolist() for n in lengths] for lengths in ([1, 3, 2], [4], [2, 1, 1, 1])]
        for pieces, answers in zip(streams, asyncio.run(several(streams)), strict=True):
            for number, answer in enumerate(answers, 1):
                expected = logits(classifier, [*itertools.chain(*pieces[:number])])
                np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-6)
    assert not server.streams and sorted(server.free) == [0, 1, 2]


def test_two_requests_to_one_stream_take_turns(served, classifier):
    _, port = served

    async def both():
        path = f"/streams/{(await ask(port, 'POST', '/streams'))['stream']}"
        answers = await asyncio.gather(*(ask(port, "POST", path, {"inputs": [3, 4]}) for _ in range(2)))
        await ask(port, "DELETE", path)
        return [answer["outputs"] for answer in answers]

    found = sorted(asyncio.run(both()))
    expected = sorted(logits(classifier, [3, 4] * n).tolist() for n in (1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused(served):
    server, port = served
    assert refused(port, "POST", "/predict", {"ids": [1]}).startswith('400 expected {"inputs": [...]}')
    assert refused(port, "POST", "/predict", {"inputs": [[1], [2, 3]]}).startswith("400 expected")
    assert refused(port, "POST", "/predict", {"inputs": [1.5]}).startswith("400 inputs are float64[1]; expected int32")
    assert refused(port, "POST", "/predict", {"inputs": [0, V]}) == "400 inputs run from 0 to 11; expected 0 to 10"
    assert refused(port, "POST", "/predict", {"inputs": [0] * 21}).startswith("413 inputs have 21 positions; expected")
    assert refused(port, "POST", "/streams/none", {"inputs": [1]}).startswith("404 no such stream")
    assert refused(port, "DELETE", "/streams/none").startswith("404")
    assert refused(port, "POST", "/predict").startswith("400 the body is no JSON")
    assert asyncio.run(ask(port, "POST", "/predict", {"inputs": []}))["label"]
    names = [asyncio.run(ask(port, "POST", "/streams"))["stream"] for _ in range(3)]
    assert refused(port, "POST", f"/streams/{names[0]}", {"inputs": []}).startswith("400 inputs are empty")
    assert refused(port, "POST", "/streams") == "503 all 3 streams are in use"
    server.idle = 0.0  # the one that was used the longest ago makes room
    asyncio.run(ask(port, "POST", f"/streams/{names[0]}", {"inputs": [1]}))
    names.append(asyncio.run(ask(port, "POST", "/streams"))["stream"])
    server.idle = 1e9
    assert refused(port, "POST", f"/streams/{names[1]}", {"inputs": [1]}).startswith("404")
    for name in (names[0], *names[2:]):
        asyncio.run(ask(port, "DELETE", f"/streams/{name}"))


def test_the_load_script_measures_streams(served):
    _, port = served
    found = asyncio.run(serving.measure("127.0.0.1", port, 3, 5))
    assert found["streams"] == 3 and 0 < found["p50_ms"] <= found["p99_ms"] and found["tokens_per_second"] > 0


def test_a_model_of_numbers_that_reads_no_streams(tmp_path):
    layer = LSTM(D, H, bidirectional=True, rngs=nnx.Rngs(0))
    model = models.Transducer(layer, 2, rngs=nnx.Rngs(1))
    qlstm_jax.export(model, tmp_path, platforms=["cpu"])
    xs = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
    with running(tmp_path, 1) as (_, port):
        found = asyncio.run(ask(port, "POST", "/predict", {"inputs": xs.tolist()}))
        assert refused(port, "POST", "/streams").startswith("405 this model reads no streams")
        assert refused(port, "POST", "/predict", {"inputs": [[1.0]]}).startswith("400 inputs are float64[1, 1]")
    assert list(found) == ["outputs"]
    np.testing.assert_allclose(found["outputs"], model(xs[None])[0], rtol=1e-5, atol=1e-6)


def test_a_tree_pads_to_the_one_length_that_it_was_exported_for(tmp_path):
    model = models.Predictor(PRLSTM(D, H, rngs=nnx.Rngs(0)), 2, rngs=nnx.Rngs(1))
    qlstm_jax.export(model, tmp_path, platforms=["cpu"], length=6)
    xs = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
    with running(tmp_path, 1, batch=1) as (_, port):
        found = asyncio.run(ask(port, "POST", "/predict", {"inputs": xs.tolist()}))["outputs"]
        refusal = refused(port, "POST", "/predict", {"inputs": [[0, 0, 0]] * 7})
    np.testing.assert_allclose(found, model(xs[None], seq_lengths=np.array([5]))[0], rtol=1e-5, atol=1e-6)
    assert refusal.startswith("413 inputs have 7 positions; expected at most 6")


def test_what_waits_while_a_batch_is_computed_is_the_next_and_a_failure_is_that_batchs_alone():
    batches = []

    def compute(items):
        batches.append(items)
        time.sleep(0.05)
        if 3 in items:
            raise ValueError("three")
        return [2 * item for item in items]

    async def run():
        batcher = serve.Batcher(compute, 2)
        task = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*map(batcher, range(6)), return_exceptions=True)
        task.cancel()
        return found

    found = asyncio.run(run())
    assert batches == [[0, 1], [2, 3], [4, 5]]
    assert found[:2] == [0, 2] and found[4:] == [8, 10] and all(isinstance(f, ValueError) for f in found[2:4])
