"""xLSTM 7B weights from and to the official PyTorch code (xlstm_large of github.com/NX-AI/xlstm), kernels as (out, in).

Its option weight_mode says whether maps of one input are saved separately or as one; the order is that of our kernels:

    "single"  q, k, v, ogate_preact    igate_preact, fgate_preact    proj_up_gate, proj_up
    "fused"   qkv_opreact              ifgate_preact                 proj_up_gate_z
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import common
from qlstm_jax.interop import entries
from qlstm_jax.interop.entries import Entry
from qlstm_jax.interop.xlstm_model import Outer, checked_config, model_from, state_dict_of
from qlstm_jax.models.xlstm import XLSTMLanguageModel, XLSTMStack
from qlstm_jax.models.xlstm_7b import MLSTM7BConfig

WEIGHT_MODES = ("single", "fused")


def xlstm_7b_from_torch(state_dict: Mapping[str, ArrayLike], config: MLSTM7BConfig) -> XLSTMLanguageModel | XLSTMStack:
    """A model with the weights of an official `xLSTMLarge`, or of an `xLSTMLargeBlockStack`.

    Weights in a safetensors file are read by `safetensors.numpy.load_file`; those in both weight modes are known by
    their names.

    Args:
        state_dict: mapping from name to array. The embedding may have the name that it has in Hugging Face's
            transformers, backbone.embeddings.weight.
        config: sizes and options of the model, which give the expected names and shapes; `xlstm_7b_config_from_torch`
            makes it of the official config.

    Returns:
        An `XLSTMLanguageModel`, or if the config has no vocab_size an `XLSTMStack`.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; for a config of another kind.
    """
    config = checked_config(config, MLSTM7BConfig, "xlstm_from_torch")
    fused = any("mlstm_layer.qkv_opreact." in name for name in state_dict)
    embedding = "backbone.embeddings.weight"
    outer = OUTER._replace(embedding=embedding) if embedding in state_dict else OUTER
    source = f"the xLSTM 7B of this config in the weight mode {'fused' if fused else 'single'!r}"
    return model_from(source, state_dict, config, outer, partial(_block, config, fused))


def xlstm_7b_to_torch(
    model: XLSTMLanguageModel | XLSTMStack, *, weight_mode: str = "single"
) -> dict[str, Float[np.ndarray, "..."]]:
    """The inverse of `xlstm_7b_from_torch`: numpy arrays by the official names, for `load_state_dict`.

    Weights in bfloat16 become float32, as of `lstm_to_torch`.

    Raises:
        ValueError: for another weight mode, or a model of another kind.
    """
    config = checked_config(model.config, MLSTM7BConfig, "xlstm_to_torch")
    common.check_choice("weight_mode", weight_mode, WEIGHT_MODES)
    return state_dict_of(model, OUTER, partial(_block, config, weight_mode == "fused"))


OUTER = Outer("embedding.weight", "backbone.", "out_norm")


def _block(config: MLSTM7BConfig, fused: bool, index: int) -> list[Entry]:
    """The parameters of a block; all are alike."""
    size, values, wide = config.embedding_size, config.value_size, config.feedforward_size
    inputs, gates, feedforward = _parts(config, fused)
    table = [
        entries.same("norm.scale", "norm_mlstm.weight", size),
        entries.linear("inputs.kernel", _ended(inputs, "weight"), size),
        entries.linear("gate_kernel", _ended(gates, "weight"), size),
        entries.vectors("gate_bias", _ended(gates, "bias")),
        entries.same("head_norm.scale", "mlstm_layer.multihead_norm.weight", values),
        entries.linear("down.kernel", {"mlstm_layer.out_proj.weight": size}, values),
        entries.same("feedforward_norm.scale", "norm_ffn.weight", size),
        entries.linear("feedforward_in.kernel", _ended(feedforward, "weight"), size),
        entries.linear("feedforward_out.kernel", {"ffn.proj_down.weight": size}, wide),
    ]
    if config.bias:
        table += [
            entries.same("norm.bias", "norm_mlstm.bias", size),
            entries.vectors("inputs.bias", _ended(inputs, "bias")),
            entries.same("head_norm.bias", "mlstm_layer.multihead_norm.bias", values),
            entries.same("down.bias", "mlstm_layer.out_proj.bias", size),
            entries.same("feedforward_norm.bias", "norm_ffn.bias", size),
            entries.vectors("feedforward_in.bias", _ended(feedforward, "bias")),
            entries.same("feedforward_out.bias", "ffn.proj_down.bias", size),
        ]
    return table


def _parts(config: MLSTM7BConfig, fused: bool) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """The maps of one input, with the outputs of each: those of the layer, of the gates and of the feed-forward."""
    keys, values, heads, wide = config.key_size, config.value_size, config.num_heads, config.feedforward_size
    if fused:
        inputs = {"mlstm_layer.qkv_opreact": 2 * keys + 2 * values}
        return inputs, {"mlstm_layer.ifgate_preact": 2 * heads}, {"ffn.proj_up_gate_z": 2 * wide}
    inputs = {"mlstm_layer.q": keys, "mlstm_layer.k": keys, "mlstm_layer.v": values, "mlstm_layer.ogate_preact": values}
    gates = {"mlstm_layer.igate_preact": heads, "mlstm_layer.fgate_preact": heads}
    return inputs, gates, {"ffn.proj_up_gate": wide, "ffn.proj_up": wide}


def _ended(parts: Mapping[str, int], kind: str) -> dict[str, int]:
    return {f"{name}.{kind}": size for name, size in parts.items()}
