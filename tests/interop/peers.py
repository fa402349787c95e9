"""Weights compared with the libraries that they come from, which the tests do not need: each is run as it is installed.

    python -m tests.interop.peers torch flax keras equinox xlstm_options xlstm_7b_options recorded

prints the largest differences of outputs, which docs/weights.md has; with --write it also writes
tests/goldens/NAME.npz, or NAME_rnn.npz for the first four; the tests read those. "recorded" compares with numbers that
others gave once.

Weights are drawn at random, biases too. "in" is a module of ours with their weights against theirs, "out" theirs with
the weights that ours gives back against theirs before.
"""

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from qlstm_jax import interop
from tests.interop.peers_xlstm import xlstm_7b_options, xlstm_options  # noqa: F401  (by name)

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

# (class in keras.layers, options, whether in both directions): the cases in keras_rnn.npz.
KERAS = {
    "lstm/plain": ("LSTM", {}, False),
    "lstm/no_bias": ("LSTM", {"use_bias": False}, False),
    "lstm/both": ("LSTM", {}, True),
    "gru/plain": ("GRU", {}, False),
    "gru/no_bias": ("GRU", {"use_bias": False}, False),
    "gru/both": ("GRU", {}, True),
    "rnn/plain": ("SimpleRNN", {}, False),
}
# (class in equinox.nn, options): the cases in equinox_rnn.npz.
EQUINOX = {
    f"{kind}/{name}": (f"{kind.upper()}Cell", {"use_bias": name == "plain"})
    for kind in ("lstm", "gru")
    for name in ("plain", "no_bias")
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


def from_keras(name, weights, both):
    """An NNX layer, or a bidirectional one of the weights of a `Bidirectional`."""
    read, half = getattr(interop, f"{name}_from_keras"), len(weights) // 2
    return interop.to_layer([(read(weights[:half]), read(weights[half:]))] if both else read(weights))


def keras():
    """As `torch`."""
    import keras

    rng = np.random.default_rng(1)
    differences, arrays = {}, {"x": XS}
    for case, (kind, options, both) in KERAS.items():
        name = case.partition("/")[0]
        layer, other = (getattr(keras.layers, kind)(H, return_sequences=True, **options) for _ in range(2))
        if both:
            layer, other = keras.layers.Bidirectional(layer), keras.layers.Bidirectional(other)
        layer.build(XS.shape), other.build(XS.shape)
        layer.set_weights([0.6 * rng.normal(size=w.shape) for w in layer.weights])
        ys = np.asarray(layer(XS))
        ours = from_keras(name, layer.weights, both)
        write = getattr(interop, f"{name}_to_keras")
        bias = options.get("use_bias", True)
        other.set_weights([a for params in ours.layer_params()[0] for a in write(params, bias=bias)])
        differences[case] = np.abs(ours(XS) - ys).max(), np.abs(np.asarray(other(XS)) - ys).max()
        arrays |= {f"{case}/{n}": np.asarray(w) for n, w in enumerate(layer.weights)} | {f"{case}/y": ys}
    return differences, arrays


def equinox():
    """As `torch`."""
    import equinox as eqx
    import jax

    rng = np.random.default_rng(2)
    differences, arrays = {}, {"x": XS}
    for case, (kind, options) in EQUINOX.items():
        name = case.partition("/")[0]
        cell = getattr(eqx.nn, kind)(D, H, key=jax.random.key(0), **options)
        own, rest = eqx.partition(cell, eqx.is_array)
        cell = eqx.combine(jax.tree.map(lambda a: np.float32(0.6 * rng.normal(size=a.shape)), own), rest)
        zeros = np.zeros((B, H), np.float32)
        start = (zeros, zeros) if name == "lstm" else zeros
        ys = stepped(jax.vmap(cell), start, XS)
        ours = getattr(interop, f"{name}_from_equinox")(cell)
        back = getattr(interop, f"{name}_to_equinox")(ours, bias=options["use_bias"])
        other = getattr(eqx.nn, kind)(D, H, key=jax.random.key(1), **options)
        other = eqx.tree_at(lambda c, back=back: [getattr(c, n) for n in back], other, list(back.values()))
        differences[case] = (
            np.abs(interop.to_layer(ours)(XS) - ys).max(),
            np.abs(stepped(jax.vmap(other), start, XS) - ys).max(),
        )
        attributes = {n: getattr(cell, n) for n in ("weight_ih", "weight_hh", "bias", "bias_n") if hasattr(cell, n)}
        arrays |= {f"{case}/{n}": a for n, a in attributes.items() if a is not None} | {f"{case}/y": ys}
    return differences, arrays


def flax():
    """As `torch`; nothing to write, as the tests run Flax itself."""
    import flax.linen as nn
    import jax
    from flax import nnx

    rng = np.random.default_rng(5)
    differences = {}
    for kind, name, form in (
        ("LSTMCell", "lstm", "nnx"),
        ("OptimizedLSTMCell", "lstm", "nnx_fused"),
        ("GRUCell", "gru", "nnx_fused"),
        ("SimpleCell", "rnn", "nnx_fused"),
    ):
        read, write = getattr(interop, f"{name}_from_flax"), getattr(interop, f"{name}_to_flax")
        redraw = partial(jax.tree.map, lambda a: np.float32(0.6 * rng.normal(size=a.shape)))
        cell = getattr(nn, kind)(H)
        carry = cell.initialize_carry(jax.random.key(0), (B, D))
        tree = redraw(cell.init(jax.random.key(0), carry, XS[:, 0])["params"])
        layer = nn.RNN(cell)
        ys, ours = layer.apply({"params": {"cell": tree}}, XS), read(tree)
        again = layer.apply({"params": {"cell": write(ours)}}, XS)
        differences[f"linen {kind}"] = np.abs(interop.to_layer(ours)(XS) - ys).max(), np.abs(again - ys).max()
        module, other = (getattr(nnx, kind)(D, H, rngs=nnx.Rngs(n)) for n in range(2))
        nnx.update(module, redraw(nnx.state(module, nnx.Param)))
        ys, ours = nnx.RNN(module)(XS), read(module)
        nnx.update(other, write(ours, form=form))
        again = nnx.RNN(other)(XS)
        differences[f"nnx {kind}"] = np.abs(interop.to_layer(ours)(XS) - ys).max(), np.abs(again - ys).max()
    return differences, None


def recorded():
    """As `torch`, of the PR-LSTM in Haiku, which takes no weights back, and of the sLSTM cell; there is no new file."""
    from qlstm_jax.cells import pr_lstm, slstm

    def under(arrays, start):
        return {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}

    differences = {}
    for kind in ("lstm", "rnn"):
        golden = dict(np.load(GOLDENS / f"prlstm_{kind}_nl2.npz"))
        params = interop.pr_lstm_from_haiku(under(golden, "param:"))
        ys = {n: pr_lstm.unroll(params, golden[f"x_{n}"])[1] for n in (1, 2, 3, 5, 13)}
        differences[f"haiku PR-{kind.upper()}"] = max(np.abs(y - golden[f"h_{n}"]).max() for n, y in ys.items()), None
    golden = dict(np.load(GOLDENS / "slstm_cell.npz"))
    start = slstm.Carry(*golden["state0_ycnm_4BH"])
    for layout in ("vanilla", "cuda"):
        weights = under(golden, f"sd_{layout}/")
        params = interop.slstm_from_torch(weights, num_heads=3, bias_layout=layout)
        _, ys = slstm.unroll(params, golden["x_BSGNH"].reshape(2, 17, 48), carry=start)
        back = interop.slstm_to_torch(params, bias_layout=layout)
        outward = max(np.abs(back[name] - a).max() for name, a in weights.items())
        differences[f"sLSTM cell, {layout}"] = (
            np.abs(ys.reshape(2, 17, 3, 4).swapaxes(1, 2) - golden["y_BNSH"]).max(),
            outward,
        )
    return differences, None


def main():
    """Prints, and with --write writes."""
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    for name in names:
        differences, arrays = globals()[name]()
        for case, (inward, outward) in differences.items():
            print(f"{name:18} {case:24} in {inward:.1e}  out {'none' if outward is None else format(outward, '.1e')}")
        if "--write" in sys.argv and arrays is not None:
            file = f"{name}.npz" if name.startswith("xlstm") else f"{name}_rnn.npz"
            np.savez_compressed(GOLDENS / file, **arrays)


if __name__ == "__main__":
    main()
