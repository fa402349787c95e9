"""xLSTM weights from and to the official PyTorch code (github.com/NX-AI/xlstm), which keeps kernels as (out, in).

Two traps of its names: in the layer of an sLSTM block `fgate` feeds the input gate and `igate` the forget gate. And the
sLSTM cell stores its recurrent kernel and bias in one of two layouts, by the backend that it was made with:

    "vanilla"  kernel (N, 4K, K), transposed;  bias (4, N, K) in one row, gate by gate, as here
    "cuda"     kernel (N, K, 4K), as here;     bias (N, 4, K) in one row, head by head

Gates come in the order i, f, z, o in both, as here; N heads of K. What the official config has, and a state dict has no
record of, is read by `xlstm_config_from_torch`.
"""

from collections.abc import Mapping
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import common, slstm
from qlstm_jax.interop import checks, entries
from qlstm_jax.interop.entries import Entry
from qlstm_jax.interop.xlstm_model import Outer, checked_config, made, model_from, state_dict_of
from qlstm_jax.models.xlstm import SLSTMBlock, XLSTMLanguageModel, XLSTMStack, block_kind
from qlstm_jax.models.xlstm_config import XLSTMConfig
from qlstm_jax.models.xlstm_stack import Block

BIAS_LAYOUTS = ("vanilla", "cuda")

StateDict = dict[str, Float[np.ndarray, "..."]]


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
    table = _cell(num_heads, size, bias_layout)
    source = f"an sLSTM cell of {num_heads} heads in the layout {bias_layout!r}"
    arrays = entries.read(table, checks.checked(source, state_dict, entries.shapes(table)))
    return slstm.Params(
        input_kernel=jnp.eye(arrays["bias"].shape[0], dtype=arrays["bias"].dtype),
        recurrent_kernel=jnp.array(arrays["recurrent_kernel"]),
        bias=jnp.array(arrays["bias"]),
        dtype=jnp.dtype(dtype).name,
    )


def slstm_to_torch(params: slstm.Params, *, bias_layout: str) -> StateDict:
    """The inverse of `slstm_from_torch`.

    Raises:
        ValueError: for an unknown layout, or params whose input kernel is not the identity, which that cell lacks.
    """
    common.check_choice("bias_layout", bias_layout, BIAS_LAYOUTS)
    kernel = np.asarray(params.input_kernel)
    if kernel.shape[0] != kernel.shape[1] or not np.array_equal(kernel, np.eye(kernel.shape[0])):
        raise ValueError(f"the input kernel {kernel.shape} is not the identity; expected params of slstm_from_torch")
    heads, size, _ = params.recurrent_kernel.shape
    table = _cell(heads, size, bias_layout)
    return entries.write(table, {"recurrent_kernel": params.recurrent_kernel, "bias": params.bias})


def xlstm_from_torch(
    state_dict: Mapping[str, ArrayLike], config: XLSTMConfig, *, bias_layout: str | None = None
) -> XLSTMLanguageModel | XLSTMStack:
    """A model with the weights of an official `xLSTMLMModel`, or of an `xLSTMBlockStack`.

    Args:
        state_dict: mapping from name to array.
        config: sizes and options of the model, which give the expected names and shapes; `xlstm_config_from_torch`
            makes it of the official config.
        bias_layout: "vanilla" or "cuda", the backend of the sLSTM cells that were saved; without sLSTM blocks not read.

    Returns:
        An `XLSTMLanguageModel`, or if the config has no vocab_size an `XLSTMStack`.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; if bias_layout is none of the two;
            for a config of another kind.
    """
    config = checked_config(config, XLSTMConfig, "xlstm_7b_from_torch")
    return model_from("the xLSTM of this config", state_dict, config, OUTER, partial(_block, config, bias_layout))


def xlstm_to_torch(model: XLSTMLanguageModel | XLSTMStack, *, bias_layout: str = "vanilla") -> StateDict:
    """The inverse of `xlstm_from_torch`: numpy arrays by the official names, for `load_state_dict`.

    Weights in bfloat16 become float32, as of `lstm_to_torch`.

    Raises:
        ValueError: for a layout that is none of the two, or a model of another kind.
    """
    config = checked_config(model.config, XLSTMConfig, "xlstm_7b_to_torch")
    return state_dict_of(model, OUTER, partial(_block, config, bias_layout))


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
    config = checked_config(config, XLSTMConfig, "xlstm_7b_from_torch")
    if not 0 <= index < config.num_blocks:
        raise ValueError(f"index is {index}; expected 0..{config.num_blocks - 1}, as the config has that many blocks")
    kind = block_kind(config, index)
    source = f"an xLSTM's {'sLSTM' if kind is SLSTMBlock else 'mLSTM'} block of this config"
    table = _block(config, bias_layout, index)
    arrays = entries.read(table, checks.checked(source, state_dict, entries.shapes(table)))
    return made(kind, config, arrays, index=index)


OUTER = Outer("token_embedding.weight", "xlstm_block_stack.", "post_blocks_norm")


def _block(config: XLSTMConfig, bias_layout: str | None, index: int) -> list[Entry]:
    """The parameters of the block at a position."""
    size = config.embedding_size
    norm = [entries.same("norm.scale", "xlstm_norm.weight", size)]
    if index not in config.slstm_at:
        return norm + entries.moved(_mlstm(config), "", "xlstm.")
    common.check_choice("bias_layout", bias_layout, BIAS_LAYOUTS)
    table = norm + entries.moved(_slstm(config, bias_layout or "", index), "", "xlstm.")
    if not config.feedforward_size:
        return table
    wide = config.feedforward_size
    table += [
        entries.same("feedforward_norm.scale", "ffn_norm.weight", size),
        entries.linear("feedforward_in.kernel", {"ffn.proj_up.weight": 2 * wide}, size),
        entries.linear("feedforward_out.kernel", {"ffn.proj_down.weight": size}, wide),
    ]
    if config.feedforward_bias:
        table += [entries.same("feedforward_in.bias", "ffn.proj_up.bias", 2 * wide)]
        table += [entries.same("feedforward_out.bias", "ffn.proj_down.bias", size)]
    return table


def _mlstm(config: XLSTMConfig) -> list[Entry]:
    size, inner, heads, part = config.embedding_size, config.inner_size, config.num_heads, config.projection_block
    table = [
        entries.linear("up.kernel", {"proj_up.weight": 2 * inner}, size),
        *_conv(inner, config.conv_size),
        entries.headwise("query_key.kernel", ["q_proj.weight", "k_proj.weight"], inner // part, part),
        entries.headwise("value.kernel", ["v_proj.weight"], inner // part, part),
        entries.linear("gate_kernel", {f"mlstm_cell.{g}gate.weight": heads for g in "if"}, 3 * inner),
        entries.vectors("gate_bias", {f"mlstm_cell.{g}gate.bias": heads for g in "if"}),
        entries.same("head_norm.scale", "mlstm_cell.outnorm.weight", inner),
        entries.same("skip", "learnable_skip", inner),
        entries.linear("down.kernel", {"proj_down.weight": size}, inner),
    ]
    if config.bias:
        table += [
            entries.same("up.bias", "proj_up.bias", 2 * inner),
            entries.vectors("query_key.bias", {"q_proj.bias": inner, "k_proj.bias": inner}),
            entries.same("value.bias", "v_proj.bias", inner),
            entries.same("down.bias", "proj_down.bias", size),
        ]
    return table


def _slstm(config: XLSTMConfig, bias_layout: str, index: int) -> list[Entry]:
    size, heads, width = config.embedding_size, config.heads(index), config.conv(index)
    table = [
        *(_conv(size, width) if width else []),
        entries.headwise("input_forget.kernel", ["fgate.weight", "igate.weight"], heads, size // heads),  # as there
        entries.headwise("cell_output.kernel", ["zgate.weight", "ogate.weight"], heads, size // heads),
        *entries.moved(_cell(heads, size // heads, bias_layout), "", "slstm_cell."),
    ]
    return table + ([entries.same("head_norm.scale", "group_norm.weight", size)] if config.slstm_norm_scale else [])


def _conv(features: int, width: int) -> list[Entry]:
    kernel = entries.convolution("conv.kernel", "conv1d.conv.weight", features, width)
    return [kernel, entries.same("conv.bias", "conv1d.conv.bias", features)]


def _cell(heads: int, size: int | None, bias_layout: str) -> list[Entry]:
    """The recurrent kernel (N, K, 4K) and the bias (4H,), gate by gate, of an sLSTM cell."""
    gates, bias_shape = checks.times(4, size), (checks.times(4 * heads, size),)
    if bias_layout == "vanilla":
        turned = {"_recurrent_kernel_": (heads, gates, size)}
        return [
            Entry("recurrent_kernel", turned, lambda a: a[0].swapaxes(1, 2), lambda a: [a.swapaxes(1, 2)]),
            Entry("bias", {"_bias_": bias_shape}, lambda a: a[0], lambda a: [a]),
        ]

    def regrouped(bias: Float[np.ndarray, " bias"], *outer: int) -> Float[np.ndarray, " bias"]:
        return bias.reshape(*outer, -1).swapaxes(0, 1).reshape(-1)

    return [
        Entry("recurrent_kernel", {"_recurrent_kernel_": (heads, size, gates)}, lambda a: a[0], lambda a: [a]),
        Entry("bias", {"_bias_": bias_shape}, lambda a: regrouped(a[0], heads, 4), lambda a: [regrouped(a, 4, heads)]),
    ]
