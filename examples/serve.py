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
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from exported_model import InputError, Model
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


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
            inputs = self.model.read(await request.json())
        except InputError as error:
            raise HTTPException(400, str(error)) from None
        except ValueError:
            raise HTTPException(400, "the body is no JSON") from None
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
