"""How a cell runs over time.

`sequential`, one step after another; `blockwise`, in blocks with a slow state; `tree`, all steps as a balanced tree in
parallel; `counter`, the same tree as a stream; `extension`, a stream grown by many tokens at once.
"""

from qlstm_jax.unroll import blockwise, counter, extension, sequential, tree

__all__ = ["blockwise", "counter", "extension", "sequential", "tree"]
