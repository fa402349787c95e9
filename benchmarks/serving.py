"""How long a token of a stream takes, against the number of streams: p50, p99 and tokens per second of a server.

    python examples/serve.py exported --port 8000 --streams 1024 --batch 256
    python benchmarks/serving.py --port 8000 --streams 1 16 64 256 1024 --tokens 64

Each stream sends its next token when it has the answer to the last, over a connection of its own. All streams run in
this process, which takes its share of the machine: on few cores the client is part of what is measured.
"""

import argparse
import asyncio
import json
import time
from typing import Any

import numpy as np

WARM = 4  # tokens of each stream that are not counted


class Connection:
    """HTTP/1.1 over one socket that stays open: all that a load needs, and little of it in Python."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """Connects."""
        return cls(*await asyncio.open_connection(host, port))

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, None where it has no body.

        Raises:
            RuntimeError: for a status that is no success.
        """
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: load\r\ncontent-length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)
        await self.writer.drain()
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if not 200 <= (code := int(status.split()[1])) < 300:
            raise RuntimeError(f"{method} {path}: {code} {answer.decode()}")
        return json.loads(answer) if answer else None

    async def close(self) -> None:
        """Disconnects."""
        self.writer.close()
        await self.writer.wait_closed()


async def one_stream(host: str, port: int, inputs: list[Any], ready: asyncio.Barrier) -> list[float]:
    """Seconds that each token took, those that warm up left out."""
    connection = await Connection.open(host, port)
    path = f"/streams/{(await connection.ask('POST', '/streams'))['stream']}"
    seconds = []
    for place, token in enumerate(inputs):
        if place == WARM:
            await ready.wait()
        start = time.perf_counter()
        await connection.ask("POST", path, {"inputs": [token]})
        seconds.append(time.perf_counter() - start)
    await connection.ask("DELETE", path)
    await connection.close()
    return seconds[WARM:]


async def measure(host: str, port: int, streams: int, tokens: int) -> dict[str, float]:
    """The figures of so many streams at once, each of `tokens` tokens."""
    connection = await Connection.open(host, port)
    manifest = await connection.ask("GET", "/model")
    await connection.close()
    described, rng = manifest["programs"]["step"]["arguments"]["inputs"], np.random.default_rng(0)
    shape = (streams, tokens + WARM, *described["shape"][1:])
    vocabulary = manifest.get("vocab_size")
    inputs = rng.normal(size=shape) if vocabulary is None else rng.integers(0, vocabulary, shape)
    started: list[float] = []
    ready = asyncio.Barrier(streams + 1)

    async def clock() -> None:
        await ready.wait()
        started.append(time.perf_counter())

    runs = [one_stream(host, port, row.tolist(), ready) for row in inputs]
    _, *found = await asyncio.gather(clock(), *runs)
    elapsed = time.perf_counter() - started[0]
    seconds = np.concatenate(found)
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"streams": streams, "tokens_per_second": seconds.size / elapsed, "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99}


def main() -> None:
    """Prints a row for each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    print("| streams | tokens a second | p50 ms | p99 ms |\n|---|---|---|---|")
    for streams in args.streams:
        found = asyncio.run(measure(args.host, args.port, streams, args.tokens))
        figures = f"{found['tokens_per_second']:,.0f} | {found['p50_ms']:.2f} | {found['p99_ms']:.2f}"
        print(f"| {streams} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
