"""Writes xlstm_7b.npz next to this file by running the official code.

    python tests/interop/make_xlstm_7b.py

Runs only where torch, xlstm (2.0.6 made the file) and mlstm_kernels are installed, which the tests do not need. For
each weight mode a model with weights of its own: its state dict, tokens and logits. Run in float64 and stored as
float32, so that the logits carry no rounding of theirs. In the mode "single" the weights are moderate, in "fused"
large enough that gates and logits lie at their caps; 24 * 2.6667 = 64.0008 channels are rounded to 64.
"""

import pathlib

import numpy as np
import torch
from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

SIZES = {"embedding_dim": 24, "num_heads": 2, "num_blocks": 2, "vocab_size": 11, "ffn_round_up_to_multiple_of": 16}
BACKEND = {
    "mode": "inference",
    "chunkwise_kernel": "chunkwise--native_autograd",
    "sequence_kernel": "native_sequence__native",
    "step_kernel": "native",
    "autocast_kernel_dtype": "float64",
    "inference_state_dtype": "float64",
    "norm_reduction_force_float32": False,
    "return_last_states": True,
}


def drawn(shape, name, large, rng):
    """A weight of this name."""
    values = rng.normal(size=shape)
    if "norm" in name:
        return 1 + 0.3 * values
    if "gate_preact" in name and "ogate" not in name:
        return values * (4 if large else 0.3)
    if name == "lm_head.weight":
        return values * (6 if large else 0.5)
    return values * (0.6 if large else 0.25)


def main():
    """Writes the file."""
    rng, arrays = np.random.default_rng(7), {}
    for mode in ("single", "fused"):
        model = xLSTMLarge(xLSTMLargeConfig(**SIZES, **BACKEND, weight_mode=mode)).double().eval()
        weights = {
            name: drawn(tuple(a.shape), name, mode == "fused", rng).astype(np.float32)
            for name, a in model.state_dict().items()
        }
        model.load_state_dict({name: torch.from_numpy(a.astype(np.float64)) for name, a in weights.items()})
        tokens = rng.integers(0, SIZES["vocab_size"], (2, 9))
        with torch.no_grad():
            logits, _ = model(torch.from_numpy(tokens))
        arrays |= {f"{mode}/sd/{name}": a for name, a in weights.items()}
        arrays |= {f"{mode}/tokens": tokens.astype(np.int32), f"{mode}/logits": logits.numpy().astype(np.float32)}
    np.savez_compressed(pathlib.Path(__file__).with_name("xlstm_7b.npz"), **arrays)


if __name__ == "__main__":
    main()
