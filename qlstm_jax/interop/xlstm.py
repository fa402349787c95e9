"""xLSTM weights from the official PyTorch code (github.com/NX-AI/xlstm), which keeps kernels as (out, in).

Two traps of its names: in the layer of an sLSTM block `fgate` feeds the input gate and `igate` the forget gate. And the
sLSTM cell stores its recurrent kernel and bias in one of two layouts, by the backend that it was made with:

    "vanilla"  kernel (N, 4K, K), transposed;  bias (4, N, K) in one row, gate by gate, as here
    "cuda"     kernel (N, K, 4K), as here;     bias (N, 4, K) in one row, head by head

Gates come in the order i, f, z, o in both, as here; N heads of K.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import common, slstm
from qlstm_jax.interop import checks
from qlstm_jax.models.xlstm import MLSTM7BConfig, SLSTMBlock, XLSTMLanguageModel, XLSTMStack, block_kind
from qlstm_jax.models.xlstm_config import XLSTMConfig
from qlstm_jax.models.xlstm_stack import Block

BIAS_LAYOUTS = ("vanilla", "cuda")

Module = TypeVar("Module", bound=nnx.Module)
Layer: TypeAlias = dict[str, np.ndarray]
BlockTree: TypeAlias = dict[str, np.ndarray | Layer]  # the parameters of a block


def slstm_from_torch(
    state_dict: Mapping[str, ArrayLike], *, num_heads: int, bias_layout: str, dtype: DTypeLike = "float32"
) -> slstm.Params:
    """Parameters of `qlstm_jax.cells.slstm` from those of an official sLSTM cell.

    That cell reads pre-activations, so the input kernel is the identity (4H, 4H): xs (B, T, 4H) holds the gates i, f, z
    and o side by side, and in a gate the heads.

    Args:
        state_dict: mapping from name to array: _recurrent_kernel_ and _bias_.
        num_heads: N.
        bias_layout: "vanilla" or "cuda", the backend of the cell that was saved.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; for an unknown layout.
    """
    common.check_sizes(num_heads=num_heads)
    common.check_choice("bias_layout", bias_layout, BIAS_LAYOUTS)
    size = checks.size(state_dict, "_bias_", 0, 4 * num_heads)
    expected = _cell_shapes(num_heads, size, bias_layout)
    source = f"an sLSTM cell of {num_heads} heads in the layout {bias_layout!r}"
    kernel, bias = _cell(checks.checked(source, state_dict, expected), "", num_heads, bias_layout)
    return slstm.Params(
        input_kernel=jnp.eye(bias.shape[0], dtype=bias.dtype),
        recurrent_kernel=jnp.array(kernel),
        bias=jnp.array(bias),
        dtype=jnp.dtype(dtype).name,
    )


def xlstm_from_torch(
    state_dict: Mapping[str, ArrayLike], config: XLSTMConfig, *, bias_layout: str | None = None
) -> XLSTMLanguageModel | XLSTMStack:
    """A model with the weights of an official `xLSTMLMModel`, or of an `xLSTMBlockStack`.

    Args:
        state_dict: mapping from name to array.
        config: sizes and options of the model; they give the expected names and shapes.
        bias_layout: "vanilla" or "cuda", the backend of the sLSTM cells that were saved; without sLSTM blocks not read.

    Returns:
        An `XLSTMLanguageModel`, or if the config has no vocab_size an `XLSTMStack`.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; if bias_layout is none of the two;
            for a config of another kind.
    """
    check_config(config, XLSTMConfig, "xlstm_7b_from_torch")
    outer = Outer("token_embedding.weight", "xlstm_block_stack.", "post_blocks_norm.weight")
    shapes = partial(_block_shapes, config, bias_layout=bias_layout)
    tree = partial(_block_tree, config=config, bias_layout=bias_layout)
    return whole("the xLSTM of this config", state_dict, config, outer, shapes, tree)


def xlstm_block_from_torch(
    state_dict: Mapping[str, ArrayLike], config: XLSTMConfig, *, index: int = 0, bias_layout: str | None = None
) -> Block:
    """An `MLSTMBlock` or `SLSTMBlock` with the weights of an official block.

    Args:
        state_dict: mapping from name to array, of the block alone: xlstm_norm.weight, xlstm.proj_up.weight and so on.
        config: sizes and options of the stack.
        index: the block's place in it, which says which kind it is.
        bias_layout: as of `xlstm_from_torch`.

    Raises:
        ValueError: as `xlstm_from_torch`; if there is no such block.
    """
    check_config(config, XLSTMConfig, "xlstm_7b_from_torch")
    if not 0 <= index < config.num_blocks:
        raise ValueError(f"index is {index}; expected 0..{config.num_blocks - 1}, as the config has that many blocks")
    kind = block_kind(config, index)
    source = f"an xLSTM's {'sLSTM' if kind is SLSTMBlock else 'mLSTM'} block of this config"
    w = checks.checked(source, state_dict, _block_shapes(config, index, bias_layout))
    return made(kind, config, _block_tree(w, "", index, config, bias_layout), index=index)


def check_config(config: object, kind: type, other: str) -> None:
    """Raises ValueError unless the config is of this kind; the weights of another kind are read by `other`."""
    if not isinstance(config, kind):
        raise ValueError(f"config is a {type(config).__name__}; expected a {kind.__name__}; see also {other}")


class Outer(NamedTuple):
    """The official names of the parameters outside of the blocks."""

    embedding: str
    stack: str  # prefix of the names of the stack in a language model
    norm: str


def whole(
    source: str,
    state_dict: Mapping[str, ArrayLike],
    config: XLSTMConfig | MLSTM7BConfig,
    outer: Outer,
    shapes: Callable[[int], Mapping[str, checks.Shape]],
    tree: Callable[[Layer, str, int], BlockTree],
) -> XLSTMLanguageModel | XLSTMStack:
    """A language model, or if the config has no vocab_size a stack, its names and shapes checked.

    Args:
        source: what the weights should be, for the message.
        state_dict: mapping from name to array.
        config: sizes and options.
        outer: names.
        shapes: from a block's index to its names and their shapes.
        tree: from (arrays by name, prefix of the block's names, its index) to the parameters of our block.
    """
    is_model = config.vocab_size is not None
    start = outer.stack if is_model else ""
    starts = [f"{start}blocks.{n}." for n in range(config.num_blocks)]
    expected: dict[str, checks.Shape] = {start + outer.norm: (config.embedding_size,)}
    if is_model:
        rows = (config.vocab_size, config.embedding_size)
        expected |= {outer.embedding: rows, "lm_head.weight": rows}
    for index, prefix in enumerate(starts):
        expected |= {prefix + name: shape for name, shape in shapes(index).items()}
    w = checks.checked(source, state_dict, expected)
    blocks = {index: tree(w, prefix, index) for index, prefix in enumerate(starts)}
    stack = {"blocks": blocks, "norm": {"scale": w[start + outer.norm]}}
    if not is_model:
        return made(XLSTMStack, config, stack)
    embed, head = {"embedding": w[outer.embedding]}, transposed(w["lm_head.weight"])
    return made(XLSTMLanguageModel, config, {"embed": embed, "stack": stack, "head": head})


def made(kind: type[Module], config: XLSTMConfig | MLSTM7BConfig, tree: Mapping[str, object], **options: Any) -> Module:
    """A module with the parameters of `tree`; none is initialized, so that nothing is in memory twice."""
    build: Callable[..., Module] = kind
    module = nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(params=0), **options))
    nnx.update(module, jax.tree.map(lambda a: jnp.array(a, config.param_dtype), tree))
    return module


def transposed(weight: Float[np.ndarray, "out in"]) -> Layer:
    """A map (out, in) as the kernel of a linear layer."""
    return {"kernel": weight.T}


def _maps(*weights: Float[np.ndarray, "n out in"]) -> Layer:
    """Head-wise maps (N, out, in) as the kernel of a `HeadwiseLinear`."""
    return {"kernel": np.stack(weights).swapaxes(2, 3)}


def _convolution(w: Layer, start: str) -> Layer:
    return {"kernel": w[f"{start}conv1d.conv.weight"][:, 0].T, "bias": w[f"{start}conv1d.conv.bias"]}


def _block_shapes(config: XLSTMConfig, index: int, bias_layout: str | None) -> dict[str, checks.Shape]:
    """The names of a block and their shapes."""
    size, inner, heads, width = config.embedding_size, config.inner_size, config.num_heads, config.conv_size
    if index not in config.slstm_at:
        maps = (inner // config.projection_block, config.projection_block, config.projection_block)
        gates: dict[str, checks.Shape] = {f"xlstm.mlstm_cell.{g}gate.weight": (heads, 3 * inner) for g in "if"}
        gates |= {f"xlstm.mlstm_cell.{g}gate.bias": (heads,) for g in "if"}
        return gates | {
            "xlstm_norm.weight": (size,),
            "xlstm.proj_up.weight": (2 * inner, size),
            "xlstm.conv1d.conv.weight": (inner, 1, width),
            "xlstm.conv1d.conv.bias": (inner,),
            **{f"xlstm.{name}_proj.weight": maps for name in "qkv"},
            "xlstm.mlstm_cell.outnorm.weight": (inner,),
            "xlstm.learnable_skip": (inner,),
            "xlstm.proj_down.weight": (size, inner),
        }
    common.check_choice("bias_layout", bias_layout, BIAS_LAYOUTS)
    cell = _cell_shapes(heads, size // heads, bias_layout)
    return {f"xlstm.slstm_cell.{name}": shape for name, shape in cell.items()} | {
        "xlstm_norm.weight": (size,),
        "xlstm.conv1d.conv.weight": (size, 1, width),
        "xlstm.conv1d.conv.bias": (size,),
        **{f"xlstm.{gate}gate.weight": (heads, size // heads, size // heads) for gate in "ifzo"},
        "xlstm.group_norm.weight": (size,),
        "ffn_norm.weight": (size,),
        "ffn.proj_up.weight": (2 * config.feedforward_size, size),
        "ffn.proj_down.weight": (size, config.feedforward_size),
    }


def _block_tree(w: Layer, start: str, index: int, config: XLSTMConfig, bias_layout: str | None) -> BlockTree:
    """The parameters of a block, whose names have the prefix `start`, as the tree of our module."""
    layer = f"{start}xlstm."
    tree: BlockTree = {"norm": {"scale": w[f"{start}xlstm_norm.weight"]}, "conv": _convolution(w, layer)}
    if index in config.slstm_at:
        kernel, bias = _cell(w, f"{layer}slstm_cell.", config.num_heads, bias_layout)
        return tree | {
            "input_forget": _maps(w[f"{layer}fgate.weight"], w[f"{layer}igate.weight"]),  # swapped, as there
            "cell_output": _maps(w[f"{layer}zgate.weight"], w[f"{layer}ogate.weight"]),
            "recurrent_kernel": kernel,
            "bias": bias,
            "head_norm": {"scale": w[f"{layer}group_norm.weight"]},
            "feedforward_norm": {"scale": w[f"{start}ffn_norm.weight"]},
            "feedforward_in": transposed(w[f"{start}ffn.proj_up.weight"]),
            "feedforward_out": transposed(w[f"{start}ffn.proj_down.weight"]),
        }
    kernels, biases = ([w[f"{layer}mlstm_cell.{g}gate.{kind}"] for g in "if"] for kind in ("weight", "bias"))
    return tree | {
        "up": transposed(w[f"{layer}proj_up.weight"]),
        "query_key": _maps(w[f"{layer}q_proj.weight"], w[f"{layer}k_proj.weight"]),
        "value": _maps(w[f"{layer}v_proj.weight"]),
        "gate_kernel": np.concatenate(kernels).T,
        "gate_bias": np.concatenate(biases),
        "head_norm": {"scale": w[f"{layer}mlstm_cell.outnorm.weight"]},
        "skip": w[f"{layer}learnable_skip"],
        "down": transposed(w[f"{layer}proj_down.weight"]),
    }


def _cell_shapes(heads: int, size: int | None, bias_layout: str | None) -> dict[str, checks.Shape]:
    gates = checks.times(4, size)
    kernel = (heads, gates, size) if bias_layout == "vanilla" else (heads, size, gates)
    return {"_recurrent_kernel_": kernel, "_bias_": (checks.times(4 * heads, size),)}


def _cell(
    w: Layer, start: str, heads: int, bias_layout: str | None
) -> tuple[Float[np.ndarray, "n k gates"], Float[np.ndarray, " bias"]]:
    """The recurrent kernel (N, K, 4K) and the bias (4H,) gate by gate."""
    kernel, bias = w[f"{start}_recurrent_kernel_"], w[f"{start}_bias_"]
    if bias_layout == "vanilla":
        return kernel.swapaxes(1, 2), bias
    return kernel, bias.reshape(heads, 4, -1).swapaxes(0, 1).reshape(-1)
