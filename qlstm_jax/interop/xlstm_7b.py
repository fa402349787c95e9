"""xLSTM 7B weights from the official PyTorch code (xlstm_large of github.com/NX-AI/xlstm), kernels as (out, in).

Its option weight_mode says whether maps of one input are saved separately or as one; the order is that of our kernels:

    "single"  q, k, v, ogate_preact    igate_preact, fgate_preact    proj_up_gate, proj_up
    "fused"   qkv_opreact              ifgate_preact                 proj_up_gate_z
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.interop import checks, xlstm
from qlstm_jax.models.xlstm import XLSTMLanguageModel, XLSTMStack
from qlstm_jax.models.xlstm_7b import MLSTM7BConfig


def xlstm_7b_from_torch(state_dict: Mapping[str, ArrayLike], config: MLSTM7BConfig) -> XLSTMLanguageModel | XLSTMStack:
    """A model with the weights of an official `xLSTMLarge`, or of an `xLSTMLargeBlockStack`.

    Weights in a safetensors file are read by `safetensors.numpy.load_file`; those in both weight modes are known by
    their names. The official options use_bias=False, add_out_norm=True, v_dim_factor=1 and both eps=1e-6, all of them
    defaults, are those of our blocks; gate_soft_cap, output_logit_soft_cap, qk_dim_factor and ffn_proj_factor are
    gate_cap, logit_cap, key_factor and feedforward_factor of the config.

    Args:
        state_dict: mapping from name to array. The embedding may have the name that it has in Hugging Face's
            transformers, backbone.embeddings.weight.
        config: sizes and options of the model; they give the expected names and shapes.

    Returns:
        An `XLSTMLanguageModel`, or if the config has no vocab_size an `XLSTMStack`.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; for a config of another kind.
    """
    xlstm.check_config(config, MLSTM7BConfig, "xlstm_from_torch")
    fused = any("mlstm_layer.qkv_opreact." in name for name in state_dict)
    embedding = "backbone.embeddings.weight"
    outer = xlstm.Outer(embedding if embedding in state_dict else "embedding.weight", "backbone.", "out_norm.weight")
    joint = _joint(config, fused)
    source = f"the xLSTM 7B of this config in the weight mode {'fused' if fused else 'single'!r}"
    return xlstm.whole(
        source,
        state_dict,
        config,
        outer,
        lambda index: _block_shapes(config, joint),
        lambda w, start, index: _block_tree(w, start, joint),
    )


def _joint(config: MLSTM7BConfig, fused: bool) -> dict[str, dict[str, int]]:
    """Our maps of one input: the official names and outputs of their parts, in order."""
    size, heads, wide = config.embedding_size, config.num_heads, config.feedforward_size
    parts = {
        "inputs": {"mlstm_layer.q": config.key_size, "mlstm_layer.k": config.key_size}
        | {"mlstm_layer.v": size, "mlstm_layer.ogate_preact": size},
        "gates": {"mlstm_layer.igate_preact": heads, "mlstm_layer.fgate_preact": heads},
        "feedforward_in": {"ffn.proj_up_gate": wide, "ffn.proj_up": wide},
    }
    if not fused:
        return parts
    names = {
        "inputs": "mlstm_layer.qkv_opreact",
        "gates": "mlstm_layer.ifgate_preact",
        "feedforward_in": "ffn.proj_up_gate_z",
    }
    return {kind: {names[kind]: sum(outputs.values())} for kind, outputs in parts.items()}


def _block_shapes(config: MLSTM7BConfig, joint: Mapping[str, Mapping[str, int]]) -> dict[str, checks.Shape]:
    """The names of a block and their shapes."""
    size = config.embedding_size
    kernels: dict[str, checks.Shape] = {
        f"{name}.weight": (rows, size) for outputs in joint.values() for name, rows in outputs.items()
    }
    biases: dict[str, checks.Shape] = {f"{name}.bias": (rows,) for name, rows in joint["gates"].items()}
    scales = "norm_mlstm.weight", "mlstm_layer.multihead_norm.weight", "norm_ffn.weight"
    norms: dict[str, checks.Shape] = dict.fromkeys(scales, (size,))
    down: dict[str, checks.Shape] = {
        "mlstm_layer.out_proj.weight": (size, size),
        "ffn.proj_down.weight": (size, config.feedforward_size),
    }
    return kernels | biases | norms | down


def _block_tree(w: xlstm.Layer, start: str, joint: Mapping[str, Mapping[str, int]]) -> xlstm.BlockTree:
    """The parameters of a block, whose names have the prefix `start`, as the tree of an `MLSTM7BBlock`."""

    def together(kind: str, end: str = "weight") -> Float[np.ndarray, "..."]:
        return np.concatenate([w[f"{start}{name}.{end}"] for name in joint[kind]])

    def scale(name: str) -> xlstm.Layer:
        return {"scale": w[f"{start}{name}.weight"]}

    return {
        "norm": scale("norm_mlstm"),
        "inputs": xlstm.transposed(together("inputs")),
        "gate_kernel": together("gates").T,
        "gate_bias": together("gates", "bias"),
        "head_norm": scale("mlstm_layer.multihead_norm"),
        "down": xlstm.transposed(w[f"{start}mlstm_layer.out_proj.weight"]),
        "feedforward_norm": scale("norm_ffn"),
        "feedforward_in": xlstm.transposed(together("feedforward_in")),
        "feedforward_out": xlstm.transposed(w[f"{start}ffn.proj_down.weight"]),
    }
