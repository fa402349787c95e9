"""What a merge of the tree is: the state of a span, the weights that all merges have, and the functions of a merge.

Every merge begins with one affine map of its two children, which the tree computes in the form that its memory layout
wants (`qlstm_jax.cells.pr_lstm.merge`), and goes on from there alone:

    leaf(x)          from  x W_leaf + b_leaf
    merge(l, r)      from  z = [h_l; h_r] W + b
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxtyping import Array, Float

from qlstm_jax.cells import common


class State(NamedTuple):
    """The state of a span of tokens."""

    h: Float[Array, "*spans h"]
    c: Float[Array, "*spans h"] | None  # float32 or wider; None for a merge without cell state


@common.params_dataclass
class Params:
    """The weights and options of every merge; each adds its own."""

    leaf_kernel: Float[Array, "d leaf"]  # (D, ·)
    leaf_bias: Float[Array, " leaf"]
    merge_kernel: Float[Array, "children merge"]  # (2H, ·): rows of the left child first
    merge_bias: Float[Array, " merge"]
    cell: str = common.static(default="lstm")
    remat: bool = common.static(default=False)
    dtype: str = common.static(default="float32")

    @property
    def input_size(self) -> int:
        """D."""
        return self.leaf_kernel.shape[0]

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.merge_kernel.shape[0] // 2


class MergeRule(Protocol):
    """The functions of a merge; a module of this folder that `MERGES` registers is one."""

    @property
    def OPTIONS(self) -> tuple[str, ...]:
        """The options of `pr_lstm.init` that the merge has; the others are refused unless at their default."""

    @property
    def HAS_CELL_STATE(self) -> bool:
        """Whether a state has c."""

    @property
    def init(self) -> Callable[..., Params]:
        """init(key, input_size, hidden_size, **options); these are OPTIONS, param_dtype and `Params`' static fields."""

    @property
    def leaf(self) -> Callable[..., State]:
        """leaf(params, z): the state of a token alone from z = x W_leaf + b_leaf, float32 or wider."""

    @property
    def join(self) -> Callable[..., State]:
        """join(params, z, left, right): that of their union from z = [h_left; h_right] W + b, float32 or wider."""

    @property
    def distance(self) -> Callable[[State, State], Float[Array, "*spans"]]:
        """How far apart two states are, 0 where they are equal; the associativity penalty is its mean."""
