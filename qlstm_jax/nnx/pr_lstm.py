"""The PR-LSTM layer: what it has beyond the others, token inputs, random offsets and the associativity penalty."""

import jax

from qlstm_jax.cells import pr_lstm
from qlstm_jax.cells.pr_lstm import regularization, tables, tokens
from qlstm_jax.nnx.cells import PRLSTMCell
from qlstm_jax.nnx.layers import Layer


class PRLSTM(Layer):
    """PR-LSTM or PR-RNN layers of `qlstm_jax.cells.pr_lstm`; `init` there describes their options.

    `last` takes half the merges of a call. With max_offset, after `train()` the tree of each row begins at a random
    place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm.regularization`); `rngs` draws it, and there
    is no carry.
    """

    cell_class = PRLSTMCell

    def __init__(self, in_features: int, hidden_size: int, *, max_offset: int = 0, **options):
        if isinstance(max_offset, bool) or not isinstance(max_offset, int) or max_offset < 0:
            raise ValueError(f"max_offset is {max_offset!r}; expected an integer, 0 or more")
        super().__init__(in_features, hidden_size, **options)
        self.max_offset = max_offset
        self.deterministic = False  # set by train() and eval()

    def initialize_carry(self, batch_size: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1):
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry."""
        return self.stack_carry(batch_size, max_length=max_length)

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or they get no `rngs`.
        """
        if (initial_carry is not None or return_carry) and self._moves(deterministic):
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Call eval(), or make the layer with max_offset=0."
            )
        options = {"seq_lengths": seq_lengths, "initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(xs, **options, deterministic=deterministic, rngs=rngs)

    def of_tokens(self, symbols, ids, *, seq_lengths=None, deterministic=None, rngs=None):
        """A call on the inputs symbols[ids]: in fewer products where one layer reads forward and V is small.

        Args:
            symbols: (V, D), the input of each symbol.
            ids: (B, T) integers in 0..V-1; what stands beyond `seq_lengths` is not read.
            seq_lengths, deterministic, rngs: as for a call.
        """
        if self._reads_tokens_alone(deterministic):
            return tokens.unroll(self.cells[0].params, symbols, ids, seq_lengths=seq_lengths)
        return self(tables.lookup(symbols, ids), seq_lengths=seq_lengths, deterministic=deterministic, rngs=rngs)

    def last_of_tokens(self, symbols, ids, *, seq_lengths=None, deterministic=None, rngs=None):
        """`last` of the inputs symbols[ids], in far fewer merges; see `of_tokens`."""
        if self._reads_tokens_alone(deterministic):
            return tokens.reduce(self.cells[0].params, symbols, ids, seq_lengths=seq_lengths).h
        return self.last(tables.lookup(symbols, ids), seq_lengths=seq_lengths, deterministic=deterministic, rngs=rngs)

    def _reads_tokens_alone(self, deterministic) -> bool:
        return len(self.cells) == 1 and not self.bidirectional and not self._moves(deterministic)

    def associativity(self, xs, *, seq_lengths=None, rngs):
        """The penalty of `qlstm_jax.cells.pr_lstm.regularization.associativity`, mean over the layers; `rngs` draws triples.

        Raises:
            ValueError: if the layer is bidirectional, or a shape does not fit.
        """
        if self.bidirectional:
            raise ValueError("bidirectional is True; expected a layer that reads forward, whose spans are prefixes'")
        key, penalties = rngs if isinstance(rngs, jax.Array) else rngs.dropout(), []
        for number, (params,) in enumerate(self.layer_params()):
            layer_key = jax.random.fold_in(key, number)
            penalties.append(regularization.associativity(params, xs, layer_key, seq_lengths=seq_lengths))
            if number + 1 < len(self.cells):
                _, xs = pr_lstm.unroll(params, xs, seq_lengths=seq_lengths)
        return sum(penalties) / len(penalties)

    def _moves(self, deterministic) -> bool:
        return self.max_offset > 0 and not (self.deterministic if deterministic is None else deterministic)

    def functions_for(self, deterministic, rngs):
        """The cell's module; in training with max_offset the same at a random offset.

        Raises:
            ValueError: if there is nothing to draw the offset with.
        """
        if not self._moves(deterministic):
            return pr_lstm
        if rngs is None:
            raise ValueError(
                f"rngs is None in training with max_offset={self.max_offset}; expected an nnx.Rngs or a key to draw "
                "the offsets with. To evaluate, call eval() first."
            )
        key = rngs if isinstance(rngs, jax.Array) else rngs.dropout()
        return regularization.RandomOffset(jax.random.fold_in(key, 1), self.max_offset)
