"""What `qlstm-export` wrote, run by JAX alone: whole sequences in batches, and many streams with their state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export


class InputError(Exception):
    """Inputs that the model does not read."""


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
            InputError: for what are none.
        """
        described = self.programs["sequence"]["arguments"]["inputs"]
        if isinstance(body, dict) and isinstance(body.get("text"), str) and self._encode is not None:
            body = {"inputs": self._encode(body["text"])}
        try:
            given = np.asarray(body["inputs"])
        except (TypeError, KeyError, ValueError):
            raise InputError('expected {"inputs": [...]}, or {"text": "..."} of a model of texts') from None
        shape, dtype = described["shape"][2:], np.dtype(described["dtype"])
        if not given.size:
            given = np.zeros((0, *shape), dtype)
        kinds = "iu" if dtype.kind == "i" else "iuf"
        if (
            given.shape[1:] != tuple(shape)
            or given.dtype.kind not in kinds
            or not np.isfinite(given.astype(dtype)).all()
        ):
            expected = f"expected {dtype} of {['time', *shape]}"
            raise InputError(f"inputs are {given.dtype}{list(given.shape)}; {expected}")
        vocabulary = self.manifest.get("vocab_size")
        if vocabulary is not None and given.size and not (given.min() >= 0 and given.max() < vocabulary):
            raise InputError(f"inputs run from {given.min()} to {given.max()}; expected 0 to {vocabulary - 1}")
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
