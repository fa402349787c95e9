"""Recurrent sequence models in JAX: QL-LSTM, PR-LSTM and the baselines that they are compared with.

Axis letters, the same everywhere:

    B  batch            H  hidden size             K  slots of a PR-LSTM stream
    T  time             N  heads, or children      L  block size
    D  input size       V  vocabulary              R  refinements

Batch-major: a sequence is (B, T, D), `lengths` is (B,) int32, positions at or beyond a row's length are padding.
"""

__version__ = "0.1.0"
