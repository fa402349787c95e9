"""PR-LSTM's modules: what they have beyond the others, streams of a chosen size and random offsets in training."""

from typing import Any, cast

import flax.linen as nn
from jaxtyping import Array, Float

from qlstm_jax.cells import common, pr_lstm
from qlstm_jax.cells.pr_lstm import regularization
from qlstm_jax.describe import Initializer
from qlstm_jax.linen.cells import Cell
from qlstm_jax.linen.layers import Layer

LONGEST = 2**pr_lstm.MAX_SLOTS - 1  # tokens of the longest stream


class StreamCell(Cell):
    """What the PR-LSTM cell has beyond the others: `max_length`, the tokens that a stream may grow to.

    Fewer make a smaller carry; beyond it outputs are NaN.
    """

    max_length: int = LONGEST

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: Any) -> Any:
        """The stream before its first token.

        Raises:
            ValueError: for a carry_init: a stream that has read nothing holds no state to draw.
        """
        refuse_carry_init(self.carry_init)
        return super().initialize_carry(rng, input_shape)

    @nn.nowrap
    def _carry_options(self) -> dict[str, Any]:
        return {"max_length": self.max_length}


class StreamLayer(Layer):
    """Layers of `qlstm_jax.cells.pr_lstm`, a balanced tree of the merge that `cell` names.

    `last` takes half the merges of a call. With max_offset and deterministic=False the tree of each sequence begins at
    a random place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm.regularization`), drawn from
    the stream "dropout"; there is no carry then.
    """

    max_offset: int = 0

    @nn.nowrap
    def initialize_carry(
        self,
        batch_size: int,
        rng: Array | None = None,
        carry_init: Initializer | None = None,
        *,
        max_length: int = LONGEST,
    ) -> Any:
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry.

        Raises:
            ValueError: for a bidirectional layer, or a carry_init: a new stream holds no state to draw.
        """
        refuse_carry_init(carry_init)
        return self._zero_carry(batch_size, max_length=max_length)

    def __call__(
        self,
        inputs: Float[Array, "... d"],
        *,
        initial_carry: Any = None,
        return_carry: bool = False,
        deterministic: bool = True,
        **options: Any,
    ) -> Any:
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or max_offset is negative.
        """
        common.check_counts(max_offset=self.max_offset)
        if (initial_carry is not None or return_carry) and self.max_offset and not deterministic:
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Give deterministic=True, or make the layer with max_offset=0."
            )
        carry = {"initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(inputs, deterministic=deterministic, **carry, **options)

    def _cell_functions(self, deterministic: bool) -> common.Cell:
        common.check_counts(max_offset=self.max_offset)
        common.check_flags(deterministic=deterministic)
        if deterministic or not self.max_offset:
            return pr_lstm
        if not self.has_rng("dropout"):
            raise ValueError(f"max_offset={self.max_offset} draws; expected rngs={{'dropout': key}}")
        # It has what a call without a carry runs, and no more.
        return cast(common.Cell, regularization.RandomOffset(self.make_rng("dropout"), self.max_offset))


def refuse_carry_init(carry_init: Initializer | None) -> None:
    """Raises ValueError where a carry is to be drawn."""
    if carry_init is not None:
        raise ValueError(
            "carry_init is given, but a PR-LSTM's stream holds no state before its first token. To start from another "
            "state pass it as initial_carry."
        )
