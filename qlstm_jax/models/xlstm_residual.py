"""The base class of the blocks of xLSTM: whole sequences and single tokens, the residual sum, dropout, the carry."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common, mlstm
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.models.xlstm_config import StackConfig
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_rngs
from qlstm_jax.nnx.dropout import applied, dropout_stream

Config = TypeVar("Config", bound=StackConfig)
Carry = TypeVar("Carry")
Dropout = Callable[[Array], Array]


class Masks(NamedTuple):
    """Which tokens there are, and which begin a sequence."""

    seq_lengths: Int[Array, " batch"] | None = None
    resets: Bool[Array, "batch time"] | None = None


def read_memory(
    q: Float[Array, "batch time heads k"],
    k: Float[Array, "batch time heads k"],
    v: Float[Array, "batch time heads v"],
    gates: Float[Array, "batch time gates"],
    state: mlstm.Carry,
    masks: "Masks",
    chunk_size: int,
    one_token: bool,
) -> tuple[mlstm.Carry, Float[Array, "..."]]:
    """The matrix memory of an mLSTM's heads, (state, h): in chunks, or its one step where T is 1.

    The gates are 2N pre-activations, first i of each head, then f.
    """
    i, f = jnp.split(gates, 2, axis=-1)
    if one_token:
        return matrix_memory.step(q[:, 0], k[:, 0], v[:, 0], i[:, 0], f[:, 0], state)
    return mlstm.chunkwise(q, k, v, i, f, state, **masks._asdict(), chunk_size=chunk_size)


class ResidualBlock(nnx.Module, Generic[Config, Carry]):
    """xs (B, T, H) to (B, T, H), by a subclass that has `_build`, `initialize_carry` and `_read`.

    Args:
        config: of the stack.
        index: the block's position in it, from 0.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").
    """

    @keeps_arguments
    def __init__(self, config: Config, *, index: int = 0, rngs: nnx.Rngs) -> None:
        check_rngs(rngs)
        if not common.is_integer(index) or not 0 <= index < config.num_blocks:
            raise ValueError(f"index is {common.shown(index)}; expected 0..{config.num_blocks - 1}, as of num_blocks")
        self.config = config
        self.dropout = nnx.Dropout(config.dropout, rngs=dropout_stream(rngs)) if config.dropout else None
        self._build(config, index, rngs)

    def _build(self, config: Config, index: int, rngs: nnx.Rngs) -> None:
        """Makes the layers."""
        raise NotImplementedError

    def initialize_carry(self, batch_size: int) -> Carry:
        """The carry before the first token: all zero."""
        raise NotImplementedError

    def _read(
        self,
        x: Float[Array, "batch time h"],
        carry: Carry,
        masks: Masks,
        dropout: Dropout,
        *,
        one_token: bool = False,
    ) -> tuple[Carry, Float[Array, "batch time h"]]:
        """(carry, outputs) of a float32 residual sum; with one_token T is 1."""
        raise NotImplementedError

    def __call__(
        self,
        xs: Float[Array, "batch time h"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        carry: Carry | None = None,
        return_carry: bool = False,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Any:
        """The outputs at every position, float32; arguments, result and errors as of `XLSTMStack`."""
        common.check_flags(return_carry=return_carry)
        xs, lengths, valid, resets = common.check_sequence(xs, seq_lengths, self.config.embedding_size, resets)
        start = self._checked(carry, xs.shape[0])
        x = xs.astype(common.accumulator(xs.dtype))
        end, ys = self._read(x, start, Masks(lengths, resets), applied(self.dropout, deterministic, rngs))
        ys = common.zero_padding(ys, valid)
        return (end, ys) if return_carry else ys

    def step(
        self, carry: Carry | None, x: Float[Array, "batch h"], *, reset: ArrayLike | None = None
    ) -> tuple[Carry, Float[Array, "batch h"]]:
        """One token, x (B, H) to (carry, y (B, H)), without dropout; `reset` as of `XLSTMStack.step`.

        Raises:
            ValueError: if x, the carry or the reset does not fit.
        """
        common.check_numbers("x", x)
        if x.ndim != 2 or x.shape[1] != self.config.embedding_size:
            raise ValueError(
                f"x has shape {x.shape}; expected (batch, {self.config.embedding_size}), one token of a stream. For a "
                "whole sequence call the block."
            )
        start = self._checked(carry, x.shape[0])
        if reset is not None:
            start = common.step_carry(start, self.initialize_carry(x.shape[0]), reset)
        x = x.astype(common.accumulator(x.dtype))[:, None]
        end, ys = self._read(x, start, Masks(), lambda added: added, one_token=True)
        return end, ys[:, 0]

    def _checked(self, carry: Carry | None, batch: int) -> Carry:
        if carry is None:
            return self.initialize_carry(batch)
        start: Carry = common.check_carry(
            carry, jax.eval_shape(lambda: self.initialize_carry(batch)), "initialize_carry"
        )
        return start
