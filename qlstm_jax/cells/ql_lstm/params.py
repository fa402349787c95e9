"""Params and carry of QL-LSTM; the formulas stand in `cell`."""

from typing import NamedTuple

from jaxtyping import Array

from qlstm_jax.cells import common

SHARING = {
    "full": (0, 0, 0, 0),
    "gates": (0, 0, 1, 0),
    "none": (0, 1, 2, 3),
}  # the map of each gate i, f, g, o


class MemoryWeights(NamedTuple):
    """The weights of the block memory."""

    summary_kernel: Array
    memory_kernel: Array
    write_scale: Array
    write_bias: Array
    read_scale: Array


@common.params_dataclass
class Params:
    """Weights; G maps side by side (1, 2 or 4), gates in the order i, f, g, o."""

    input_kernel: Array  # W (D, G·H)
    recurrent_kernel: Array  # U (H, G·H); of several heads (N, K, G·K), block-diagonal
    gate_scale: Array | None  # α (4, H); None where no map is shared
    gate_bias: Array  # β (4, H)
    summary_kernel: Array | None = None  # P (H, H); this and all below None without skip
    memory_kernel: Array | None = None  # Q (H, H)
    write_scale: Array | None = None  # a_i, a_g (2, H)
    write_bias: Array | None = None  # b_i, b_g (2, H)
    read_scale: Array | None = None  # γ (H,)
    sharing: str = common.static(default="full")
    block_size: int = common.static(default=32)
    epsilon: float = common.static(default=1.0)
    remat: bool = common.static(default=False)
    implementation: str = common.static(default="auto")
    dtype: str = common.static(default="float32")

    @property
    def num_heads(self) -> int:
        """N."""
        return self.recurrent_kernel.shape[0] if self.recurrent_kernel.ndim == 3 else 1

    @property
    def skip(self) -> bool:
        """Whether the cell has the block memory."""
        return self.read_scale is not None

    @property
    def memory_weights(self) -> MemoryWeights:
        """The weights of the block memory, of a cell that has one."""
        weights = [getattr(self, name) for name in MemoryWeights._fields]
        return MemoryWeights(*weights)


class Slow(NamedTuple):
    """The part of a carry that belongs to the block memory."""

    memory: Array
    summary: Array
    position: Array


class Carry(NamedTuple):
    """What passes from step to step; the last three are None without skip."""

    c: Array  # (B, H), float32 or wider
    h: Array  # (B, H)
    memory: Array | None = None  # m_k (B, H), float32 or wider
    summary: Array | None = None  # (B, H), the sum of h over the block so far
    position: Array | None = None  # (B,) int32, tokens of the block so far, 0..L-1

    @property
    def slow(self) -> Slow | None:
        """The part that belongs to the block memory."""
        if self.memory is None or self.summary is None or self.position is None:
            return None
        return Slow(self.memory, self.summary, self.position)
