"""The base of the fifteen tasks: the batch, drawing and labelling, the tape, loss and accuracy."""

import abc
import dataclasses
from typing import ClassVar, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, Key, Shaped

from qlstm_jax.data.checks import as_array, check_key
from qlstm_jax.data.formal import checks, draws

# The symbol that ends an output of varying length; what follows it in the output counts in the loss only.
TERMINATOR = 2

Length = TypeVar("Length", int, Array)
Symbols: TypeAlias = Int[Array, "batch n"]
Lengths: TypeAlias = Int[Array, " batch"]
Outputs: TypeAlias = Int[Array, "batch width"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Labelled strings, padded with zeros to one width (a pytree).

    Attributes:
        ids: (B, N) int32, input symbols, 0 at and beyond a row's length.
        lengths: (B,) int32, n, the number of input symbols of each row.
        targets: (B, M) int32, output symbols, 0 at and beyond a row's target length.
        target_lengths: (B,) int32, m(n), the number of output symbols of each row.
        mask: (B, M) float32, 1 where an output symbol counts in the accuracy, 0 elsewhere and in the padding.
    """

    ids: Int[Array, "batch n"]
    lengths: Int[Array, " batch"]
    targets: Int[Array, "batch m"]
    target_lengths: Int[Array, " batch"]
    mask: Float[Array, "batch m"]


def valid_mask(lengths: Int[Array, " batch"], width: int) -> Bool[Array, "batch width"]:
    """(B,) lengths -> (B, width) bool, True before a row's length."""
    return jnp.arange(width, dtype=jnp.int32)[None, :] < lengths[:, None]


class FormalTask(abc.ABC):
    """A formal language as a transduction: read n symbols, then write m(n) symbols.

    Every method is pure and can be jitted; sizes and `max_length` are static. Tasks hold no state.
    Source: Deletang et al., Neural Networks and the Chomsky Hierarchy, arXiv 2207.02098.

    Attributes:
        name: key of the task in `TASKS`.
        level: 'regular', 'dcf' (deterministic context-free) or 'cs' (context-sensitive).
        input_size: number of input symbols, without the empty symbol that `frame` adds.
        output_size: number of output symbols.
        terminated: whether an output ends with `TERMINATOR`, after which the accuracy counts nothing.
        answer: (a, b) of m(n) = a n + b.
    """

    name: str
    level: str
    input_size: int
    output_size: int
    terminated: bool = False
    answer: ClassVar[tuple[int, int]] = (0, 1)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.level}, {self.input_size} symbols in, {self.output_size} out>"

    def output_length(self, n: Length) -> Length:
        """Returns m(n) for n input symbols, an int or an array like n."""
        factor, more = self.answer
        return factor * n + more

    def input_length(self, length: Length) -> Length:
        """Returns n for a nominal length: the length itself, unless no string has that many symbols."""
        return length

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        """Draws inputs of lengths in 1..width, (B, width) int32, uniform here; the caller clears the padding."""
        if self.input_size == 2:
            return draws.bits(key, lengths.shape[0], width)
        return draws.symbols(key, lengths.shape[0], width, self.input_size)

    @abc.abstractmethod
    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        """Returns the outputs of (B, N) inputs whose padding is 0: (B, width) int32; the caller clears theirs."""

    def sample(
        self, key: Key[Array, ""], batch_size: int, length: int | ArrayLike, *, max_length: int | None = None
    ) -> Batch:
        """Draws labelled strings.

        Args:
            key: a typed PRNG key, `jax.random.key(seed)`.
            batch_size: B, at least 1; static.
            length: the nominal length n >= 1. A Python int gives every row that length and, without
                `max_length`, exactly that width. An integer array, () or (B,), may be traced and differ
                between rows; traced values are clipped to 1..max_length.
            max_length: the static width N, required if `length` is an array. One compiled program then
                serves every length up to it.

        Returns:
            A `Batch` with N = max_length if given and the rows' length otherwise, M = output_length(N).

        Raises:
            TypeError: if `key` is no PRNG key, `batch_size` or `max_length` no Python int, or `length` not of integers.
            ValueError: if one is out of range, or an array comes without `max_length` or in another shape.
        """
        check_key(key)
        checks.positive("batch_size", batch_size)
        if max_length is not None:
            checks.positive("max_length", max_length)
        lengths, width = checks.as_lengths(length, batch_size, max_length)
        lengths = self.input_length(lengths).astype(jnp.int32)
        width = self.input_length(width) if max_length is None else width
        ids = jnp.where(valid_mask(lengths, width), self._draw(key, lengths, width), 0).astype(jnp.int32)
        targets, target_lengths = self._label_padded(ids, lengths)
        mask = self.accuracy_mask(targets) * valid_mask(target_lengths, targets.shape[1])
        return Batch(ids, lengths, targets, target_lengths, mask)

    def target(self, ids: Integer[ArrayLike, "batch n"]) -> Int[Array, "batch m"]:
        """The output of whole rows: (B, n) integers -> (B, m(n)) int32. Raises ValueError as `label` does."""
        ids = checks.as_ids(ids, self.name, self.input_size)
        if self.input_length(ids.shape[1]) != ids.shape[1]:
            raise ValueError(
                f"ids has {ids.shape[1]} symbols a row; no string of {self.name} has that length. "
                "Drop the last symbol, or call label with the rows' own lengths."
            )
        return self.label(ids, np.full(ids.shape[0], ids.shape[1], np.int32))[0]

    def label(
        self, ids: Integer[ArrayLike, "batch n"], lengths: Integer[ArrayLike, " batch"]
    ) -> tuple[Int[Array, "batch m"], Int[Array, " batch"]]:
        """Returns the outputs of padded rows; what the padding holds does not matter.

        Args:
            ids: (B, N) integers in 0..input_size-1, each row a string of the language in its first n
                positions.
            lengths: (B,) integers in 1..N.

        Returns:
            targets (B, output_length(N)) int32, 0 at and beyond m(n), and target_lengths (B,) int32.

        Raises:
            ValueError: for another shape or dtype, or concrete symbols or lengths out of range. Whether a row
                obeys the grammar is not checked.
        """
        ids = checks.as_ids(ids, self.name, self.input_size)
        batch, width = ids.shape
        lengths = checks.row_lengths(lengths, batch, width)
        checks.within_rows("ids", ids, lengths, self.input_size - 1, f"the symbols of {self.name}")
        lengths = jnp.asarray(lengths)
        ids = jnp.where(valid_mask(lengths, width), jnp.asarray(ids), 0).astype(jnp.int32)
        return self._label_padded(ids, lengths)

    def _label_padded(
        self, ids: Int[Array, "batch n"], lengths: Int[Array, " batch"]
    ) -> tuple[Int[Array, "batch m"], Int[Array, " batch"]]:
        width = self.output_length(ids.shape[1])
        target_lengths = self.output_length(lengths)
        targets = self._label(ids, lengths, width)
        return jnp.where(valid_mask(target_lengths, width), targets, 0).astype(jnp.int32), target_lengths

    def accuracy_mask(self, targets: Int[Array, "batch m"]) -> Float[Array, "batch m"]:
        """(B, m) outputs -> (B, m) float32: 1 up to and including the first terminator, or 1 everywhere.

        Raises:
            ValueError: if targets are no integers (B, m).
        """
        targets = jnp.asarray(as_array("targets", targets, "integers of shape (batch, m), output symbols"))
        if targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.integer):
            raise ValueError(
                f"targets is {targets.dtype} of shape {targets.shape}; expected integers of shape (batch, m)"
            )
        if not self.terminated:
            return jnp.ones(targets.shape, jnp.float32)
        ends = (targets == TERMINATOR).astype(jnp.int32)
        return (jnp.cumsum(ends, axis=1) - ends == 0).astype(jnp.float32)

    def tape(self, batch: Batch) -> tuple[Int[Array, "batch tape"], Int[Array, " batch"]]:
        """Returns what a model reads: a row's n symbols, then m(n) empty symbols (input_size), then nothing (-1).

        Returns:
            ids (B, N + M) int32; total_lengths (B,) int32, n + m(n).

        Raises:
            TypeError, ValueError: if `batch` is none, or none of this task.
        """
        self._check_batch(batch)
        total = batch.lengths + batch.target_lengths
        width = batch.ids.shape[1] + batch.targets.shape[1]
        ids = jnp.pad(batch.ids, ((0, 0), (0, batch.targets.shape[1])))
        ids = jnp.where(valid_mask(batch.lengths, width), ids, self.input_size)
        return jnp.where(valid_mask(total, width), ids, -1), total

    def frame(self, batch: Batch) -> tuple[Float[Array, "batch tape symbols"], Int[Array, " batch"]]:
        """Returns `tape` as a model's input: xs (B, N + M, input_size + 1) float32, one-hot, 0 in the padding; lengths.

        The empty symbol is the last channel.
        """
        ids, total = self.tape(batch)
        # one_hot gives zeros for a class outside its range, which is what the padding is to be.
        return jax.nn.one_hot(ids, self.input_size + 1, dtype=jnp.float32), total

    def outputs(self, ys: Shaped[Array, "batch tape k"], batch: Batch) -> Shaped[Array, "batch m k"]:
        """Returns the part of a model's outputs that is the answer: positions n .. n+m-1 of each row.

        Args:
            ys: (B, N + M, K), one output for each position of the tape that `frame` made from `batch`.
            batch: the batch.

        Returns:
            (B, M, K), 0 at and beyond a row's m.

        Raises:
            ValueError: if `ys` has another shape.
        """
        self._check_batch(batch)
        ys = jnp.asarray(as_array("ys", ys, "an output for each position of the tape"))
        n, m = batch.ids.shape[1], batch.targets.shape[1]
        if ys.ndim != 3 or ys.shape[:2] != (batch.ids.shape[0], n + m):
            raise ValueError(
                f"ys has shape {ys.shape}; expected ({batch.ids.shape[0]}, {n + m}, K), one output for each "
                "position of the tape. Run the model on the xs that frame returns."
            )
        places = batch.lengths[:, None] + jnp.arange(m, dtype=jnp.int32)[None, :]
        valid = valid_mask(batch.target_lengths, m)
        answers = jnp.take_along_axis(ys, jnp.where(valid, places, 0)[:, :, None], axis=1)
        return jnp.where(valid[:, :, None], answers, jnp.zeros((), ys.dtype))

    def loss(self, logits: Float[Array, "batch m k"], batch: Batch) -> Float[Array, ""]:
        """Returns the cross-entropy in float32: mean over a row's m positions (all of them), then over the rows.

        loss = 1/B sum_b 1/m_b sum_{j<m_b} -log softmax(logits[b, j])[targets[b, j]]

        Args:
            logits: (B, M, output_size), as `outputs` returns them.
            batch: the batch.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: if `logits` has another shape.
        """
        logits = self._checked(logits, batch)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        picked = jnp.take_along_axis(log_probs, batch.targets[:, :, None], axis=2)[:, :, 0]
        picked = jnp.where(valid_mask(batch.target_lengths, picked.shape[1]), picked, 0.0)
        return -jnp.mean(jnp.sum(picked, axis=1) / batch.target_lengths.astype(jnp.float32))

    def correct(
        self, logits: Float[Array, "batch m k"], batch: Batch
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        """Returns each row's number of right symbols and of symbols that count, (B,) float32 both; see `accuracy`."""
        logits = self._checked(logits, batch)
        right = (jnp.argmax(logits, axis=-1) == batch.targets).astype(jnp.float32)
        return jnp.sum(batch.mask * right, axis=1), jnp.sum(batch.mask, axis=1)

    def accuracy(self, logits: Float[Array, "batch m k"], batch: Batch) -> Float[Array, ""]:
        """Returns sum(mask * right) / sum(mask) over the whole batch, a float32 scalar; `logits` as for `loss`."""
        right, counted = self.correct(logits, batch)
        return jnp.sum(right) / jnp.sum(counted)

    def _check_batch(self, batch: Batch) -> None:
        checks.check_batch(batch, Batch, self.input_size, self.output_size, self.name)

    def _checked(self, logits: ArrayLike, batch: Batch) -> Array:
        """Returns the logits as an array, if they and the batch fit this task."""
        self._check_batch(batch)
        expected = (*batch.targets.shape, self.output_size)
        logits = jnp.asarray(as_array("logits", logits, f"an array of shape {expected}"))
        if not jnp.issubdtype(logits.dtype, jnp.floating):
            raise ValueError(f"logits is an array of {logits.dtype}; expected floating-point numbers")
        if logits.shape != expected:
            raise ValueError(
                f"logits has shape {logits.shape}; expected {expected}: rows, output positions, symbols "
                f"of {self.name}. Take the outputs at the answer's positions with outputs(ys, batch)."
            )
        return logits
