"""An exported model behind HTTP: requests are batched, and streams keep their state on the server.

    qlstm-export --workdir=runs/reviews --out=exported
    python examples/serve.py exported --port 8000

| request | answer |
|---|---|
| `GET /model` | the manifest |
| `POST /predict` `{"text": "a fine film"}` or `{"inputs": [3, 1, 4]}` | `{"outputs": [...]}`, and labels |
| `POST /streams` | 201 `{"stream": ID}`: a stream that has read nothing |
| `POST /streams/ID` `{"inputs": [3, 1]}` or a text | `{"outputs": [...]}` after all that the stream has read |
| `DELETE /streams/ID` | 204 |

This process needs jax, flatbuffers, starlette, uvicorn and, for texts, tokenizers; qlstm_jax is not imported. There is
no limit on the size of a body and no encryption here: a server that faces the world stands behind a proxy that has
both.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import uvicorn
from jax import export
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def power_of_two(number: int) -> int:
    """The least power of two that is not below: each number of rows or positions is a program to compile."""
    return 1 << max(number - 1, 0).bit_length()


class Model:
    """An exported model, with room for the state of `capacity` streams on the device.

    Attributes:
        manifest: what manifest.json holds.
        streams: whether it reads streams.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.programs = self.manifest["programs"]
        exported = {
            name: export.deserialize(bytearray((folder / program["file"]).read_bytes()))
            for name, program in self.programs.items()
        }
        self._sequence = jax.jit(exported["sequence"].call)
        self._encode = encoder(folder, self.manifest.get("tokenizer"))
        self.streams, self.spare = "step" in exported, capacity  # the last row is that of nobody
        if self.streams:
            step = exported["step"].call
            kept = self.programs["step"]["arguments"]["carry"]
            self._carry = [jnp.zeros((capacity + 1, *a["shape"][1:]), a["dtype"]) for a in kept]

            def advance(carry: list[Any], rows: Any, inputs: Any, reset: Any) -> Any:
                new, outputs = step([a[rows] for a in carry], inputs, reset)
                return [a.at[rows].set(b) for a, b in zip(carry, new, strict=True)], outputs

            self._advance = jax.jit(advance, donate_argnums=0)

    def read(self, body: Any) -> np.ndarray:
        """The inputs (T,) or (T, D) of a request's body.

        Raises:
            HTTPException: for what are none.
        """
        described = self.programs["sequence"]["arguments"]["inputs"]
        if isinstance(body, dict) and isinstance(body.get("text"), str) and self._encode is not None:
            body = {"inputs": self._encode(body["text"])}
        try:
            given = np.asarray(body["inputs"])
        except (TypeError, KeyError, ValueError):
            raise HTTPException(400, 'expected {"inputs": [...]}, or {"text": "..."} of a model of texts') from None
        shape, dtype = described["shape"][2:], np.dtype(described["dtype"])
        if not given.size:
            given = np.zeros((0, *shape), dtype)
        kinds = "iu" if dtype.kind == "i" else "iuf"
        if given.shape[1:] != tuple(shape) or given.dtype.kind not in kinds or not np.isfinite(given).all():
            expected = f"expected {dtype} of {['time', *shape]}"
            raise HTTPException(400, f"inputs are {given.dtype}{list(given.shape)}; {expected}")
        vocabulary = self.manifest.get("vocab_size")
        if vocabulary is not None and given.size and not (given.min() >= 0 and given.max() < vocabulary):
            raise HTTPException(400, f"inputs run from {given.min()} to {given.max()}; expected 0 to {vocabulary - 1}")
        return given.astype(dtype)

    def predict(self, sequences: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs of whole sequences, as one batch."""
        time_ = self.programs["sequence"]["arguments"]["inputs"]["shape"][1]
        longest = max(map(len, sequences))
        steps = power_of_two(max(longest, 16)) if time_ == "time" else time_
        rows = power_of_two(len(sequences))
        inputs = np.zeros((rows, steps, *sequences[0].shape[1:]), sequences[0].dtype)
        lengths = np.zeros(rows, np.int32)
        for row, sequence in enumerate(sequences):
            inputs[row, : len(sequence)], lengths[row] = sequence, len(sequence)
        outputs = np.asarray(self._sequence(inputs, lengths))
        by_position = len(self.programs["sequence"]["results"]["outputs"]["shape"]) == 3
        return [outputs[row, :length] if by_position else outputs[row] for row, length in enumerate(lengths)][
            : len(sequences)
        ]

    def step(self, tokens: list[tuple[int, np.ndarray, bool]]) -> list[np.ndarray]:
        """The outputs after one more token of some streams: the row of each, its token, whether it begins anew."""
        size = power_of_two(len(tokens))
        rows, reset = np.full(size, self.spare, np.int32), np.ones(size, bool)
        first = tokens[0][1]
        inputs = np.zeros((size, *first.shape), first.dtype)
        for place, (row, token, begins) in enumerate(tokens):
            rows[place], inputs[place], reset[place] = row, token, begins
        self._carry, outputs = self._advance(self._carry, rows, inputs, reset)
        return list(np.asarray(outputs)[: len(tokens)])

    def warm_up(self, batch: int) -> None:
        """Compiles the steps of up to `batch` streams."""
        described = self.programs["step"]["arguments"]["inputs"]
        token = np.zeros(described["shape"][1:], described["dtype"])
        for power in range(power_of_two(batch).bit_length()):
            self.step([(self.spare, token, True)] * min(2**power, batch))


def encoder(folder: Path, described: dict[str, Any] | None) -> Callable[[str], list[int]] | None:
    """From a text to ids, of a model that reads texts."""
    if described is None:
        return None
    if described["kind"] == "byte":
        return lambda text: [byte + described["offset"] for byte in text.encode()]
    import tokenizers  # of texts alone

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / described["file"]))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


class Batcher:
    """Gathers calls: what comes while one batch is computed is the next batch, so that nothing waits for a clock.

    Args:
        compute: from a list of items to a list of results; it runs in a thread, one call at a time.
        size: the most items of a batch.
    """

    def __init__(self, compute: Callable[[list[Any]], list[Any]], size: int) -> None:
        self.compute, self.size = compute, size
        self.waiting: collections.deque[tuple[Any, asyncio.Future[Any]]] = collections.deque()
        self.some = asyncio.Event()

    async def __call__(self, item: Any) -> Any:
        """The result of one item."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((item, future))
        self.some.set()
        return await future

    async def run(self) -> None:
        """Computes batches, without end."""
        while True:
            await self.some.wait()
            batch = [self.waiting.popleft() for _ in range(min(self.size, len(self.waiting)))]
            if not self.waiting:
                self.some.clear()
            try:
                results = await asyncio.to_thread(self.compute, [item for item, _ in batch])
            except Exception as error:  # these requests fail; the next batch may not
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)


class Stream:
    """A stream's row on the device; `used` is when it was last asked."""

    def __init__(self, row: int) -> None:
        self.row, self.fresh, self.used, self.turn = row, True, time.monotonic(), asyncio.Lock()


class Server:
    """The application; see this module for its requests.

    Args:
        model: what is served.
        batch: the most rows of a batch.
        max_tokens: the most positions of a request.
        idle: seconds without a request after which a stream may be dropped for another.
    """

    def __init__(self, model: Model, *, batch: int = 64, max_tokens: int = 4096, idle: float = 600.0) -> None:
        fixed = model.programs["sequence"]["arguments"]["inputs"]["shape"][1]
        self.model, self.batch, self.idle, self.max_tokens = model, batch, idle, max_tokens
        self.longest = max_tokens if fixed == "time" else min(max_tokens, fixed)
        self.streams: dict[str, Stream] = {}
        self.free = list(range(model.spare))
        self.predictions, self.steps = Batcher(model.predict, batch), Batcher(model.step, batch)
        routes = [
            Route("/model", self.describe, methods=["GET"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/streams", self.open, methods=["POST"]),
            Route("/streams/{name}", self.advance, methods=["POST"]),
            Route("/streams/{name}", self.close, methods=["DELETE"]),
        ]
        self.app = Starlette(routes=routes, lifespan=self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Compiles, and computes batches while the server runs."""
        if self.model.streams:
            self.model.warm_up(self.batch)
        tasks = [asyncio.create_task(batcher.run()) for batcher in (self.predictions, self.steps)]
        yield
        for task in tasks:
            task.cancel()

    async def describe(self, _: Request) -> Response:
        """GET /model."""
        return JSONResponse(self.model.manifest)

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        inputs = await self.inputs(request, self.longest)
        return JSONResponse(self.answer(await self.predictions(inputs)))

    async def open(self, _: Request) -> Response:
        """POST /streams."""
        if not self.model.streams:
            raise HTTPException(405, "this model reads no streams: it has no carry")
        if not self.free:
            self.drop_idle()
        name = secrets.token_urlsafe(12)
        self.streams[name] = Stream(self.free.pop())
        return JSONResponse({"stream": name}, 201)

    def drop_idle(self) -> None:
        """Frees the row of the stream that was used the longest ago, if that is long ago."""
        name, oldest = min(self.streams.items(), key=lambda pair: pair[1].used)
        if oldest.turn.locked() or time.monotonic() - oldest.used < self.idle:
            raise HTTPException(503, f"all {self.model.spare} streams are in use")
        self.free.append(self.streams.pop(name).row)

    def stream(self, name: str) -> Stream:
        """The stream of this name."""
        if name not in self.streams:
            raise HTTPException(404, "no such stream; it may have been dropped after a time without requests")
        return self.streams[name]

    async def advance(self, request: Request) -> Response:
        """POST /streams/ID."""
        name = request.path_params["name"]
        inputs = await self.inputs(request, self.max_tokens)
        if not len(inputs):
            raise HTTPException(400, "inputs are empty; expected one token or more")
        async with self.stream(name).turn:
            stream = self.stream(name)  # it may have been closed while this request waited for its turn
            for token in inputs:
                outputs = await self.steps((stream.row, token, stream.fresh))
                stream.fresh = False
            stream.used = time.monotonic()
        return JSONResponse(self.answer(outputs))

    async def close(self, request: Request) -> Response:
        """DELETE /streams/ID."""
        name = request.path_params["name"]
        async with self.stream(name).turn:
            self.free.append(self.stream(name).row)
            del self.streams[name]
        return Response(status_code=204)

    async def inputs(self, request: Request, longest: int) -> np.ndarray:
        """The inputs in a request's body, up to `longest` positions."""
        try:
            body = await request.json()
        except ValueError:
            raise HTTPException(400, "the body is no JSON") from None
        inputs = self.model.read(body)
        if len(inputs) > longest:
            raise HTTPException(413, f"inputs have {len(inputs)} positions; expected at most {longest}")
        return inputs

    def answer(self, outputs: np.ndarray) -> dict[str, Any]:
        """Outputs as JSON has them, of a classifier with its labels."""
        found: dict[str, Any] = {"outputs": outputs.tolist()}
        if labels := self.model.manifest.get("labels"):
            chances = np.exp(outputs - outputs.max())
            chances /= chances.sum()
            found["label"] = labels[int(np.argmax(chances))]
            found["probabilities"] = {label: round(float(p), 6) for label, p in zip(labels, chances, strict=True)}
        return found


def main() -> None:
    """Serves a folder that qlstm-export wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--streams", type=int, default=1024, help="streams at once")
    parser.add_argument("--batch", type=int, default=64, help="rows that are computed at once")
    parser.add_argument("--idle", type=float, default=600.0, help="seconds after which a stream may be dropped")
    args = parser.parse_args()
    server = Server(Model(args.folder, args.streams), batch=args.batch, idle=args.idle)
    uvicorn.run(server.app, host=args.host, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
