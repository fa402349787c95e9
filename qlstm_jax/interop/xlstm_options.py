"""Official xLSTM configs as ours: every option is taken over, without effect on the outputs, or refused by name.

A state dict has no record of most options. `XLSTMConfig` and `MLSTM7BConfig` have a field for each that changes the
outputs; the tables below say which is which.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jax.typing import DTypeLike

from qlstm_jax.models.xlstm import MLSTM7BConfig, XLSTMConfig

Options = Mapping[str, Any]

# Options that must be as they are here, because ours has nothing else.
FIXED: dict[str, Options] = {
    "": {},
    "mlstm_block": {},
    "mlstm_block.mlstm": {},
    "slstm_block": {},
    "slstm_block.slstm": {
        "num_gates": 4,
        "gradient_recurrent_cut": False,
        "gradient_recurrent_clipval": None,
        "forward_clipval": None,
        "input_shape": "BSGNH",
        "output_shape": "BNSH",
        "constants": {},
        "initial_val": 0.0,
    },
    "slstm_block.feedforward": {"ff_type": "ffn_gated"},
    "7B": {"eps": 1e-6},
}
# Options that change no output of an evaluated model in float32: initial values, dropout that the stack overrides or
# that training alone has, sizes that follow from others, and how and how precisely kernels compute.
FREE: dict[str, set[str]] = {
    "": {"context_length", "weight_decay_on_embedding"},
    "mlstm_block": set(),
    "mlstm_block.mlstm": {"embedding_dim", "bias", "dropout", "context_length"},
    "slstm_block": set(),
    "slstm_block.slstm": {
        *("hidden_size", "embedding_dim", "num_states", "dropout", "bias_init", "recurrent_weight_init", "batch_size"),
        *("backend", "internal_input_shape", "dtype", "dtype_b", "dtype_r", "dtype_w", "dtype_g", "dtype_s", "dtype_a"),
        "enable_automatic_mixed_precision",
    },
    "slstm_block.feedforward": {"embedding_dim", "dropout"},
    "7B": {
        *("norm_reduction_force_float32", "chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "weight_mode"),
        *("return_last_states", "autocast_kernel_dtype", "inference_state_dtype"),
    },
}
_ROUNDED = {"round_proj_up_dim_up": True, "round_proj_up_to_multiple_of": 64}
# Options that are taken over, with the official defaults.
TAKEN: dict[str, Options] = {
    "": {
        "num_blocks": 1,
        "embedding_dim": 128,
        "add_post_blocks_norm": True,
        "bias": False,
        "dropout": 0.0,
        "slstm_at": [],
        "mlstm_block": None,
        "slstm_block": None,
        "vocab_size": None,
        "tie_weights": False,
        "add_embedding_dropout": False,
    },
    "mlstm_block": {"mlstm": {}},
    "mlstm_block.mlstm": {
        "conv1d_kernel_size": 4,
        "qkv_proj_blocksize": 4,
        "num_heads": 4,
        "proj_factor": 2.0,
        **_ROUNDED,
    },
    "slstm_block": {"slstm": {}, "feedforward": {}},
    "slstm_block.slstm": {"num_heads": 4, "conv1d_kernel_size": 4, "group_norm_weight": True, "function": "slstm"},
    "slstm_block.feedforward": {"proj_factor": 1.3, "act_fn": "gelu", "bias": False, **_ROUNDED},
    "7B": {
        "embedding_dim": None,
        "num_heads": None,
        "num_blocks": None,
        "vocab_size": None,
        "use_bias": False,
        "norm_eps": 1e-6,
        "add_out_norm": True,
        "qk_dim_factor": 0.5,
        "v_dim_factor": 1.0,
        "chunk_size": 64,
        "ffn_proj_factor": 2.6667,
        "ffn_round_up_to_multiple_of": 64,
        "gate_soft_cap": 15.0,
        "output_logit_soft_cap": 30.0,
    },
}


def xlstm_config_from_torch(
    config: Any, *, dtype: DTypeLike = "float32", param_dtype: DTypeLike = "float32"
) -> XLSTMConfig:
    """Our config for an official `xLSTMLMModelConfig` or `xLSTMBlockStackConfig`.

    In training the two differ in what dropout acts on: ours drops all that is added to the residual sum, theirs the
    sLSTM's outputs before their norm, and the feed-forward by a rate of its own.

    Args:
        config: the official dataclass, or the same as nested mappings; what is left out has the official default.
        dtype: of activations.
        param_dtype: of the parameters.

    Raises:
        ValueError: for an option that is unknown, or has a value that ours cannot compute; it is named.
    """
    top = _options("", config)
    has_mlstm, slstm_at = top["mlstm_block"] is not None, top["slstm_at"] if top["mlstm_block"] is not None else "all"
    if slstm_at and top["slstm_block"] is None:
        raise ValueError(f"slstm_block is None and slstm_at {slstm_at!r}; expected the config of the sLSTM blocks")
    mlstm = _inner("mlstm_block", "mlstm", top["mlstm_block"] if has_mlstm else {}) or {}
    slstm = _inner("slstm_block", "slstm", top["slstm_block"] or {}) or {}
    feedforward = _inner("slstm_block", "feedforward", top["slstm_block"] or {})
    size, vocabulary = top["embedding_dim"], top["vocab_size"]
    wide = feedforward or _options("slstm_block.feedforward", {})
    return XLSTMConfig(
        embedding_size=size,
        num_blocks=top["num_blocks"],
        vocab_size=None if vocabulary in (None, -1) else vocabulary,
        num_heads=mlstm["num_heads"],
        dropout=top["dropout"],
        embedding_dropout=top["dropout"] if top["add_embedding_dropout"] else 0.0,
        tie_embedding=top["tie_weights"],
        final_norm=top["add_post_blocks_norm"],
        bias=top["bias"],
        slstm_at=slstm_at,
        conv_size=mlstm["conv1d_kernel_size"],
        projection_block=mlstm["qkv_proj_blocksize"],
        inner_factor=_factor("mlstm_block.mlstm", mlstm, size),
        inner_multiple=mlstm["round_proj_up_to_multiple_of"],
        slstm_heads=max(slstm["num_heads"], 1),
        slstm_conv_size=slstm["conv1d_kernel_size"],
        slstm_function=slstm["function"],
        slstm_norm_scale=slstm["group_norm_weight"],
        feedforward_factor=None if feedforward is None else _factor("slstm_block.feedforward", wide, size),
        feedforward_multiple=wide["round_proj_up_to_multiple_of"],
        feedforward_bias=wide["bias"],
        activation=wide["act_fn"],
        dtype=dtype,
        param_dtype=param_dtype,
    )


def xlstm_7b_config_from_torch(
    config: Any, *, dtype: DTypeLike = "float32", param_dtype: DTypeLike = "float32"
) -> MLSTM7BConfig:
    """Our config for an official `xLSTMLargeConfig`; arguments and errors as of `xlstm_config_from_torch`."""
    options = _options("7B", config)
    for name in ("embedding_dim", "num_heads", "num_blocks"):
        if options[name] is None:
            raise ValueError(f"{name} is left out; expected a size, as the official config has no default")
    return MLSTM7BConfig(
        embedding_size=options["embedding_dim"],
        num_blocks=options["num_blocks"],
        vocab_size=options["vocab_size"],
        num_heads=options["num_heads"],
        final_norm=options["add_out_norm"],
        bias=options["use_bias"],
        norm_eps=options["norm_eps"],
        logit_cap=options["output_logit_soft_cap"],
        gate_cap=options["gate_soft_cap"],
        key_factor=options["qk_dim_factor"],
        value_factor=options["v_dim_factor"],
        feedforward_factor=options["ffn_proj_factor"],
        feedforward_multiple=options["ffn_round_up_to_multiple_of"],
        chunk_size=options["chunk_size"],
        dtype=dtype,
        param_dtype=param_dtype,
    )


def _options(section: str, given: Any) -> dict[str, Any]:
    """The options of a section that are taken over, those that are left out with their defaults."""
    given = given if isinstance(given, Mapping) else dataclasses.asdict(given)
    start = f"{section}." if section not in ("", "7B") else ""
    given = {name: value for name, value in given.items() if not name.startswith("_")}  # computed from the others
    for name, value in given.items():
        if name in FIXED[section] and value != FIXED[section][name]:
            raise ValueError(f"{start}{name} is {value!r}; expected {FIXED[section][name]!r}, as ours has nothing else")
        if not any(name in table[section] for table in (FIXED, FREE, TAKEN)):
            raise ValueError(f"{start}{name} is {value!r}; expected an official config, which has no such option")
    return {name: given.get(name, default) for name, default in TAKEN[section].items()}


def _inner(outer: str, name: str, given: Any) -> dict[str, Any] | None:
    """The options of a section in another; None where it is None."""
    inner = _options(outer, given)[name]
    return None if inner is None else _options(f"{outer}.{name}", inner)


def _factor(section: str, options: Options, size: int) -> float:
    """The factor that gives the official size when it is rounded up, where the official code may round down."""
    factor, multiple = options["proj_factor"], options["round_proj_up_to_multiple_of"]
    if options["round_proj_up_dim_up"]:
        return float(factor)
    rounded: int = math.floor(factor * size / multiple) * multiple
    if rounded <= 0:
        raise ValueError(
            f"{section}.round_proj_up_dim_up is False, and {factor} · {size} channels rounded down to a multiple of "
            f"{multiple} are none; expected more"
        )
    return (rounded - 0.5) / size
