"""The official xLSTM code (xlstm 2.0.6, PyTorch) against ours, with every option that changes an output.

`peers.py` runs these functions and writes what they give into tests/goldens/xlstm_options.npz and xlstm_7b_options.npz.
Configs are official ones as nested mappings.
"""

import numpy as np

from qlstm_jax import interop

SIZES = {"vocab_size": 5, "embedding_dim": 8, "context_length": 6}
MLSTM = {"num_heads": 2, "round_proj_up_to_multiple_of": 8}
SLSTM = {"num_heads": 2, "backend": "vanilla"}
WIDE = {"round_proj_up_to_multiple_of": 8}
TOKENS = np.random.default_rng(3).integers(0, 5, (2, 6)).astype(np.int32)


def both(mlstm=None, slstm=None, feedforward=None, **options):
    """A config of an mLSTM and an sLSTM block."""
    wide = None if feedforward == "none" else WIDE | (feedforward or {})
    blocks = {"mlstm_block": {"mlstm": MLSTM | (mlstm or {})}}
    blocks["slstm_block"] = {"slstm": SLSTM | (slstm or {}), "feedforward": wide}
    return SIZES | blocks | {"num_blocks": 2, "slstm_at": [1]} | options


def alone(**options):
    """A config of one sLSTM block."""
    block = {"slstm": SLSTM, "feedforward": WIDE | options}
    return SIZES | {"num_blocks": 1, "slstm_at": "all", "slstm_block": block}


XLSTM = {
    "plain": both(),
    "heads_and_convolutions": both(
        {"num_heads": 4, "conv1d_kernel_size": 3}, {"num_heads": 1, "conv1d_kernel_size": 2}
    ),
    "no_convolution": both(slstm={"conv1d_kernel_size": 0}),
    "biases": both(feedforward={"bias": True}, bias=True),
    "tied_without_last_norm": both(slstm={"group_norm_weight": False}, add_post_blocks_norm=False, tie_weights=True),
    "no_feedforward": both(feedforward="none", mlstm={"qkv_proj_blocksize": 8}),
    "rounded_down": both(
        {"round_proj_up_dim_up": False, "proj_factor": 2.9},
        feedforward={"round_proj_up_dim_up": False, "proj_factor": 1.9},
    ),
} | {f"activation_{name}": alone(act_fn=name) for name in ("relu", "relu^2", "sigmoid", "swish", "selu")}
LARGE = {"embedding_dim": 8, "num_heads": 2, "num_blocks": 2, "vocab_size": 5, "ffn_round_up_to_multiple_of": 8}
XLSTM_7B = {
    "biases": LARGE | {"use_bias": True, "norm_eps": 0.1},
    "sizes": LARGE | {"v_dim_factor": 1.5, "qk_dim_factor": 1.0, "ffn_proj_factor": 1.3, "add_out_norm": False},
    "caps": LARGE | {"gate_soft_cap": 0.5, "output_logit_soft_cap": 0.7},
    "no_caps": LARGE | {"gate_soft_cap": None, "output_logit_soft_cap": None, "weight_mode": "fused"},
}


def compared(net, other, read, write, run, case):
    """((largest difference in, out), arrays) of a network with random weights.

    Args:
        net, other: two networks of theirs.
        read: from a state dict to a model of ours.
        write: from a model of ours to a state dict.
        run: a network's logits.
        case: its name.
    """
    import torch

    rng = np.random.default_rng(4)
    weights = {}
    for name, a in net.state_dict().items():
        drawn = 0.5 * rng.normal(size=tuple(a.shape)) + ("norm" in name and "large" in type(net).__module__)
        weights[name] = torch.from_numpy(drawn.astype(np.float32))
    if hasattr(net, "token_embedding") and net.lm_head.weight is net.token_embedding.weight:
        weights["lm_head.weight"] = weights["token_embedding.weight"]
    net.load_state_dict(weights)
    model = read(weights)
    other.load_state_dict({name: torch.from_numpy(a) for name, a in write(model).items()})
    logits = run(net)
    differences = np.abs(model(TOKENS) - logits).max(), np.abs(run(other) - logits).max()
    arrays = {f"{case}/sd/{name}": a.numpy() for name, a in weights.items()} | {f"{case}/y": logits}
    return differences, arrays


def xlstm_options():
    """(cases, arrays): for each case its largest differences, in and out."""
    import torch
    from dacite import from_dict
    from xlstm import xLSTMLMModel, xLSTMLMModelConfig

    differences, arrays = {}, {"x": TOKENS}
    for case, options in XLSTM.items():
        net, other = (xLSTMLMModel(from_dict(xLSTMLMModelConfig, options)).eval() for _ in range(2))

        def run(net):
            with torch.no_grad():
                return net(torch.from_numpy(TOKENS).long()).numpy()

        config = interop.xlstm_config_from_torch(net.config)
        assert config == interop.xlstm_config_from_torch(options)

        def read(weights, config=config):
            return interop.xlstm_from_torch(weights, config, bias_layout="vanilla")

        differences[case], more = compared(net, other, read, interop.xlstm_to_torch, run, case)
        arrays |= more
    return differences, arrays


def xlstm_7b_options():
    """As `xlstm_options`."""
    import torch
    from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

    backend = {"mode": "inference", "chunkwise_kernel": "chunkwise--native_autograd", "step_kernel": "native"}
    backend |= {"sequence_kernel": "native_sequence__native", "autocast_kernel_dtype": "float32"}
    backend |= {"return_last_states": True}
    differences, arrays = {}, {"x": TOKENS}
    for case, options in XLSTM_7B.items():
        official = xLSTMLargeConfig(**options, **backend)
        net, other = xLSTMLarge(official).eval(), xLSTMLarge(official).eval()

        def run(net):
            with torch.no_grad():
                return net(torch.from_numpy(TOKENS).long())[0].numpy()

        config = interop.xlstm_7b_config_from_torch(net.config)
        assert config == interop.xlstm_7b_config_from_torch(options)

        def read(weights, config=config):
            return interop.xlstm_7b_from_torch(weights, config)

        def write(model, mode=official.weight_mode):
            return interop.xlstm_7b_to_torch(model, weight_mode=mode)

        differences[case], more = compared(net, other, read, write, run, case)
        arrays |= more
    return differences, arrays
