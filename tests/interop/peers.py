"""Weights compared with the libraries that they come from, which the tests do not need: each is run as it is installed.

    python -m tests.interop.peers torch keras equinox               prints the largest differences of outputs
    python -m tests.interop.peers torch keras equinox --write       and writes tests/goldens/NAME_rnn.npz

Weights are drawn at random, biases too. "in" is a module of ours with their weights against theirs, "out" theirs with
the weights that ours gives back against theirs before.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from qlstm_jax import interop

GOLDENS = Path(__file__).parents[1] / "goldens"
B, T, D, H = 2, 5, 3, 4
XS = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
# (in torch.nn, options): the names of the cases in torch_rnn.npz.
TORCH = {
    f"{kind}/{name}": (kind.upper(), options)
    for kind in ("lstm", "gru", "rnn")
    for name, options in {
        "stack": {"num_layers": 2, "bidirectional": True},
        "plain": {"bias": False},
        "cell": None,
    }.items()
}


def stepped(step, carry, xs):
    """`step` folded over (B, T, D)."""
    ys = []
    for t in range(xs.shape[1]):
        carry = step(xs[:, t], carry)
        ys.append(carry[0] if isinstance(carry, tuple) else carry)
    return np.stack([np.asarray(y) for y in ys], axis=1)


def torch():
    """(cases, arrays): for each case its largest differences, in and out."""
    import torch

    def run(net, is_cell):
        with torch.no_grad():
            xs = torch.from_numpy(XS)
            return stepped(net, None, xs) if is_cell else net(xs)[0].numpy()

    torch.manual_seed(0)
    differences, arrays = {}, {"x": XS}
    for case, (kind, options) in TORCH.items():
        is_cell = options is None
        make = getattr(torch.nn, kind + ("Cell" if is_cell else ""))
        options = {} if is_cell else {"batch_first": True, **options}
        net, other = make(D, H, **options), make(D, H, **options)
        ys = run(net, is_cell)
        name, weights = case.partition("/")[0], net.state_dict()
        if is_cell:
            ours = getattr(interop, f"{name}_from_torch")(weights, layer=None)
            back = getattr(interop, f"{name}_to_torch")(ours, layer=None)
            ours = interop.to_layer(ours)
        else:
            ours = getattr(interop, f"{name}_layer_from_torch")(weights)
            back = getattr(interop, f"{name}_to_torch")(ours, bias=options.get("bias", True))
        other.load_state_dict({name: torch.from_numpy(a) for name, a in back.items()})
        differences[case] = np.abs(ours(XS) - ys).max(), np.abs(run(other, is_cell) - ys).max()
        arrays |= {f"{case}/sd/{name}": a.numpy() for name, a in weights.items()} | {f"{case}/y": ys}
    return differences, arrays


def main():
    """Prints, and with --write writes."""
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    for name in names:
        differences, arrays = globals()[name]()
        for case, (inward, outward) in differences.items():
            print(f"{name:8} {case:16} in {inward:.1e}  out {outward:.1e}")
        if "--write" in sys.argv:
            np.savez_compressed(GOLDENS / f"{name}_rnn.npz", **arrays)


if __name__ == "__main__":
    main()
