"""The PR-LSTM layer: what it has beyond the others, random offsets in training and a carry of a chosen size."""

import flax.linen as nn

from qlstm_jax.cells import pr_lstm
from qlstm_jax.cells.pr_lstm import regularization
from qlstm_jax.linen.cells import PRLSTMCell
from qlstm_jax.linen.layers import Layer


class PRLSTM(Layer):
    """PR-LSTM or PR-RNN layers of `qlstm_jax.cells.pr_lstm`; `init` there describes their options.

    `last` takes half the merges of a call. With max_offset and deterministic=False the tree of each row begins at a
    random place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm.regularization`), drawn from the
    stream "dropout"; there is no carry then.
    """

    refinements: int = 1
    cell: str = "lstm"
    norm: str = "none"
    value_init: str = "paper"
    forget_bias: float = 0.0
    remat: bool = False
    max_offset: int = 0

    cell_class = PRLSTMCell

    @nn.nowrap
    def initialize_carry(self, batch_size: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1):
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry."""
        return self.stack_carry(batch_size, max_length=max_length)

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=True):
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or max_offset is negative.
        """
        if (initial_carry is not None or return_carry) and self.max_offset and not deterministic:
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Give deterministic=True, or make the layer with max_offset=0."
            )
        options = {"seq_lengths": seq_lengths, "initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(xs, **options, deterministic=deterministic)

    def functions_for(self, deterministic):
        """The cell's module; in training with max_offset the same at a random offset."""
        if self.max_offset < 0:
            raise ValueError(f"max_offset is {self.max_offset!r}; expected an integer, 0 or more")
        if deterministic or not self.max_offset:
            return pr_lstm
        return regularization.RandomOffset(self.make_rng("dropout"), self.max_offset)
