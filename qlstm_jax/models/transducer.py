"""A tape in, a tape out: the model of the formal languages (arXiv 2207.02098)."""

import jax
from flax import nnx


class Transducer(nnx.Module):
    """Recurrent layers over a framed tape, then a linear readout at the positions that are asked for.

        y_t = readout(h_t) W + b          readout relu as in arXiv 2605.17108, or none

    Args:
        layer: a sequence layer of `qlstm_jax.nnx`.
        output_size: symbols of the output.
        readout: "relu" or "none".
        dropout: rate before the last linear map.
        rngs: for the initial parameters.
    """

    def __init__(self, layer, output_size: int, *, readout: str = "relu", dropout: float = 0.0, rngs: nnx.Rngs):
        self.layer = layer
        self.readout = readout
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(layer.output_size, output_size, rngs=rngs)

    def __call__(self, xs, *, seq_lengths=None, rngs=None):
        """xs (B, T, C) to logits (B, T, output_size)."""
        return self._read(self.layer(xs, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def last(self, xs, *, seq_lengths=None, rngs=None):
        """xs (B, T, C) to the logits (B, output_size) of each row's last valid position."""
        return self._read(self.layer.last(xs, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def from_tokens(self, symbols, ids, *, seq_lengths=None, rngs=None):
        """A call on the inputs symbols[ids], as the layer's `from_tokens`: symbols (V, C), ids (B, T)."""
        return self._read(self.layer.from_tokens(symbols, ids, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def last_from_tokens(self, symbols, ids, *, seq_lengths=None, rngs=None):
        """`last` of the inputs symbols[ids], as the layer's `last_from_tokens`: symbols (V, C), ids (B, T)."""
        return self._read(self.layer.last_from_tokens(symbols, ids, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def _read(self, h, rngs):
        h = jax.nn.relu(h) if self.readout == "relu" else h
        return self.head(self.dropout(h.astype(self.head.kernel.dtype), rngs=rngs))
