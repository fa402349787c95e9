"""PR-LSTM's modules: what they have beyond the others, streams of a chosen size, random offsets, inputs by token."""

from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from qlstm_jax.cells import common, pr_lstm
from qlstm_jax.cells.pr_lstm import regularization, tokens
from qlstm_jax.describe import Initializer
from qlstm_jax.nnx import checks
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.cells import Cell
from qlstm_jax.nnx.layers import Layer

LONGEST = 2**pr_lstm.MAX_SLOTS - 1  # tokens of the longest stream


class PRLSTMCell(Cell):
    """The cell of `qlstm_jax.cells.pr_lstm`, with any of its merges, as a stream; works inside `flax.nnx.RNN`."""

    functions: ClassVar[common.Cell] = pr_lstm

    @keeps_arguments
    def __init__(
        self, in_features: int, hidden_features: int, *, max_length: int = LONGEST, rngs: nnx.Rngs, **options: Any
    ) -> None:
        super().__init__(in_features, hidden_features, rngs=rngs, **options)
        pr_lstm.check_max_length(max_length)
        self.max_length = max_length

    def initialize_carry(
        self,
        input_shape: Any,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
        carry_init: Initializer | None = None,
    ) -> Any:
        """The stream before its first token, with room for `max_length` tokens; beyond, outputs are NaN.

        Raises:
            ValueError: for a carry_init: a stream that has read nothing holds no state to draw.
        """
        _refuse_carry_init(carry_init)
        return super().initialize_carry(input_shape, rngs)

    def _carry_options(self) -> dict[str, Any]:
        return {"max_length": self.max_length}


class PRLSTM(Layer):
    """Layers of `qlstm_jax.cells.pr_lstm`, a balanced tree of the merge that `cell` names.

    `last` takes half the merges of a call. With max_offset, after `train()` the tree of each sequence begins at a
    random place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm.regularization`); `rngs` draws
    it, and there is no carry.
    """

    cell_class: ClassVar[type[Cell]] = PRLSTMCell
    functions: ClassVar[common.Cell] = pr_lstm

    @keeps_arguments
    def __init__(
        self, in_features: int, hidden_features: int, *, max_offset: int = 0, rngs: nnx.Rngs, **options: Any
    ) -> None:
        common.check_counts(max_offset=max_offset)
        super().__init__(in_features, hidden_features, rngs=rngs, **options)
        self.max_offset = max_offset
        self.deterministic = False  # set by train() and eval()

    def initialize_carry(
        self,
        batch_size: int,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
        carry_init: Initializer | None = None,
        *,
        max_length: int = LONGEST,
    ) -> Any:
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry.

        Raises:
            ValueError: for a bidirectional layer, or a carry_init: a new stream holds no state to draw.
        """
        _refuse_carry_init(carry_init)
        checks.check_source(rngs, "carry")
        return self._zero_carry(batch_size, max_length=max_length)

    def __call__(
        self,
        inputs: Float[Array, "... d"],
        *,
        initial_carry: Any = None,
        return_carry: bool = False,
        deterministic: bool | None = None,
        **options: Any,
    ) -> Any:
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or they get no `rngs`.
        """
        if (initial_carry is not None or return_carry) and self._has_offsets(deterministic):
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Call eval(), or make the layer with max_offset=0."
            )
        carry = {"initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(inputs, deterministic=deterministic, **carry, **options)

    def from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch time h"]:
        """A call on the inputs symbols[ids]: without resets, in fewer products where one layer reads forward."""
        if resets is None and self._shares_merges(deterministic):
            return tokens.unroll(self.cells[0].params, symbols, ids, seq_lengths=seq_lengths)
        options = {"seq_lengths": seq_lengths, "resets": resets, "deterministic": deterministic, "rngs": rngs}
        return super().from_tokens(symbols, ids, **options)

    def last_from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch h"]:
        """`last` of the inputs symbols[ids], in far fewer merges; see `from_tokens`."""
        if resets is None and self._shares_merges(deterministic):
            return tokens.reduce(self.cells[0].params, symbols, ids, seq_lengths=seq_lengths).h
        options = {"seq_lengths": seq_lengths, "resets": resets, "deterministic": deterministic, "rngs": rngs}
        return super().last_from_tokens(symbols, ids, **options)

    def _shares_merges(self, deterministic: bool | None) -> bool:
        return len(self.cells) == 1 and not self.bidirectional and not self._has_offsets(deterministic)

    def associativity(
        self, inputs: Float[Array, "batch time d"], *, seq_lengths: Any = None, rngs: nnx.Rngs | Array
    ) -> Float[Array, ""]:
        """The penalty of `regularization.associativity`, mean over the layers; `rngs` draws triples.

        Raises:
            ValueError: if the layer is bidirectional, or a shape does not fit.
        """
        if self.bidirectional:
            raise ValueError("bidirectional is True; expected a layer that reads forward, whose spans are prefixes'")
        key, penalties = _drawn_key(rngs), []
        for number, (params,) in enumerate(self._layer_params()):
            layer_key = jax.random.fold_in(key, number)
            penalties.append(regularization.associativity(params, inputs, layer_key, seq_lengths=seq_lengths))
            if number + 1 < len(self.cells):
                _, inputs = pr_lstm.unroll(params, inputs, seq_lengths=seq_lengths)
        return jnp.mean(jnp.stack(penalties))

    def _has_offsets(self, deterministic: bool | None) -> bool:
        return self.max_offset > 0 and not (self.deterministic if deterministic is None else deterministic)

    def _cell_functions(self, deterministic: bool | None, rngs: nnx.Rngs | Array | None) -> common.Cell:
        if not self._has_offsets(deterministic):
            return pr_lstm
        if rngs is None:
            raise ValueError(
                f"rngs is None in training with max_offset={self.max_offset}; expected an nnx.Rngs or a key to draw "
                "the offsets with. To evaluate, call eval() first."
            )
        key = _drawn_key(rngs)
        # It has what a call without a carry runs, and no more.
        return cast(common.Cell, regularization.RandomOffset(jax.random.fold_in(key, 1), self.max_offset))


def _drawn_key(rngs: Any) -> Array:
    """A key from the argument of a call that needs one."""
    if rngs is None:
        raise TypeError("rngs is None; expected an nnx.Rngs or a key to draw with")
    checks.check_source(rngs, "dropout")
    return rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs() if isinstance(rngs, nnx.RngStream) else rngs


def _refuse_carry_init(carry_init: Initializer | None) -> None:
    if carry_init is not None:
        raise ValueError(
            "carry_init is given, but a PR-LSTM's stream holds no state before its first token. To start from another "
            "state pass it as initial_carry."
        )
