"""Times the layers on the GPU of this machine against cuDNN, PyTorch and Flax, interleaved in one process.

    python benchmarks/gpu/ratios.py --out results/gpu/lines.jsonl --parts recurrent mlstm decode

Parts, in the order of importance; each line is one run of a group whose members took turns:

    recurrent   a layer D = H over (B, T, D), forward, and forward and backward, float32 (products as the framework
                chooses by default, which is TF32 on such a GPU in all of them) and bfloat16. Peers: torch.nn.LSTM and
                GRU (cuDNN), jax.experimental.rnn (cuDNN, float32), flax.nnx.RNN of Flax's cells
    reduce      the last state alone at T 4,096: PR-LSTM's tree against cuDNN's LSTM
    mlstm       mLSTM at 65,536 tokens in rows of 1,024 to 65,536, against causal scaled-dot-product attention
    decode      one token

`ms` is the median over the rounds; `torch`, `cudnn`, `flax` say how many times as long as this run that peer takes.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from lines import Lines
from timing import Program, compile_all, layer_program, summary, time_in_turn, torch_run

from qlstm_jax import nnx as layers

SIZES = [(16, 1024, 768), (64, 256, 256), (128, 64, 128), (8, 2048, 512)]
QUICK = [(4, 16, 64)]
# name: the layer, its options besides the sizes
OURS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "QLSTM": ("QLSTM", lambda h: {}),
    "LSTM": ("LSTM", lambda h: {}),
}
# At the first size, forward and backward, alone.
MORE: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "QLSTM block 128": ("QLSTM", lambda h: {"block_size": 128}),
    "GRU": ("GRU", lambda h: {}),
    "SLSTM": ("SLSTM", lambda h: {"num_heads": h // 64}),
    "MinLSTM": ("MinLSTM", lambda h: {}),
    "MLSTM": ("MLSTM", lambda h: {}),
}
# Runs that this device may not have: what is refused becomes a line of its own.
TRIED: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "QLSTM kernel": ("QLSTM", lambda h: {"num_heads": max(1, h // 256), "implementation": "kernel"}),
    "LSTM cudnn": ("LSTM", lambda h: {"implementation": "cudnn"}),
}
TRIED_MORE: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "QLSTM block 128 kernel": (
        "QLSTM",
        lambda h: {"num_heads": max(1, h // 256), "implementation": "kernel", "block_size": 128},
    ),
    "SLSTM kernel": ("SLSTM", lambda h: {"num_heads": h // 64, "implementation": "kernel"}),
}
PEERS = {"torch": "torch LSTM", "cudnn": "jax cuDNN LSTM", "flax": "flax LSTM"}
Runs = tuple[dict[str, Any], dict[str, str]]  # {name: run}, {name: why it cannot be made}
Group = tuple[str, str, Callable[[], Runs]]  # (part, key, a function that makes the runs)


def flax_layer(name: str, hidden: int, dtype: str) -> nnx.Module:
    """Flax's RNN over its cell of that name."""
    cell = {"flax LSTM": nnx.OptimizedLSTMCell, "flax GRU": nnx.GRUCell}[name]
    return nnx.RNN(cell(hidden, hidden, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))


def cudnn_program(xs: jax.Array, *, backward: bool) -> Program:
    """JAX's own call of cuDNN's LSTM."""
    from jax.experimental import rnn

    batch, steps, hidden = xs.shape
    weights = rnn.init_lstm_weight(jax.random.key(0), hidden, hidden, 1, False)
    start = jnp.zeros((1, batch, hidden), xs.dtype)
    lengths = jnp.full((batch,), steps, jnp.int32)

    def loss(weights: jax.Array, xs: jax.Array) -> jax.Array:
        ys, _, _ = rnn.lstm(
            xs,
            start,
            start,
            weights,
            lengths,
            input_size=hidden,
            hidden_size=hidden,
            num_layers=1,
            dropout=0.0,
            bidirectional=False,
        )
        return jnp.mean(jnp.square(ys))

    return Program(jax.grad(loss, argnums=(0, 1)) if backward else loss, weights, xs)


def recurrent_group(size: tuple[int, int, int], dtype: str, *, backward: bool) -> Runs:
    """Ours and the peers' layers at one size."""
    import torch

    batch, steps, hidden = size
    xs = jax.random.normal(jax.random.key(0), (batch, steps, hidden), dtype)
    runs: dict[str, Any] = {}
    refused: dict[str, str] = {}
    whole = backward and size == SIZES[0]
    ours = OURS | MORE if whole else OURS
    tried = TRIED | TRIED_MORE if whole else TRIED
    if dtype == "float32":  # which the kernel refuses
        tried = {name: run for name, run in tried.items() if "kernel" not in name}
    for name, (layer, options) in (ours | tried).items():
        try:
            made = getattr(layers, layer)(hidden, hidden, rngs=nnx.Rngs(0), dtype=dtype, **options(hidden))
            runs[name] = layer_program(made, xs, backward=backward)
        except (TypeError, ValueError) as error:
            if name in ours:
                raise
            refused[name] = str(error)[:400]
    for name in ("flax LSTM", "flax GRU") if whole else ("flax LSTM",):
        runs[name] = layer_program(flax_layer(name, hidden, dtype), xs, backward=backward)
    if dtype == "float32":
        runs["jax cuDNN LSTM"] = cudnn_program(xs, backward=backward)
    for name in ("LSTM", "GRU") if whole else ("LSTM",):
        module = getattr(torch.nn, name)(hidden, hidden, batch_first=True)
        runs[f"torch {name}"] = torch_run(module, xs.shape, dtype, backward=backward)
    return runs, refused


def groups(parts: list[str], *, quick: bool) -> Iterator[Group]:
    """The groups of these parts in the order of importance."""
    both = {"forward+backward": True, "forward": False}
    if "recurrent" in parts:
        sizes = QUICK if quick else SIZES
        for size, dtype, (way, backward) in itertools.product(sizes, ("bfloat16", "float32"), both.items()):
            if (backward and dtype == "bfloat16") or size == sizes[0]:
                key = "B {} T {} H {}".format(*size) + f" {dtype} {way}"
                yield "recurrent", key, partial(recurrent_group, size, dtype, backward=backward)
    if "reduce" in parts:
        steps = 64 if quick else 4096
        for hidden, (way, backward) in itertools.product((256, 768), both.items()):
            key = f"reduce B 8 T {steps} H {hidden} float32 {way}"
            yield "reduce", key, partial(reduce_group, steps, hidden, backward=backward)
    if "mlstm" in parts:
        tokens = 1024 if quick else 65536
        for rows in (64, 16, 4, 1):
            key = f"mlstm B {rows} T {tokens // rows} heads 4 x 128 bfloat16 forward+backward"
            yield "mlstm", key, partial(mlstm_group, rows, tokens // rows)
    if "decode" in parts:
        for batch in (1, 64):
            yield "decode", f"decode B {batch} H 768 float32", partial(decode_group, batch)


def reduce_group(steps: int, hidden: int, *, backward: bool) -> Runs:
    """The last output of a long sequence, by the tree and by a sequential LSTM."""
    import torch

    xs = jax.random.normal(jax.random.key(0), (8, steps, hidden))
    layer = layers.PRLSTM(hidden, hidden, rngs=nnx.Rngs(0))
    runs: dict[str, Any] = {
        "PRLSTM": layer_program(layer, xs, backward=backward, method="last"),
        "jax cuDNN LSTM": cudnn_program(xs, backward=backward),
        "torch LSTM": torch_run(
            torch.nn.LSTM(hidden, hidden, batch_first=True), xs.shape, "float32", backward=backward
        ),
    }
    return runs, {}


def mlstm_group(rows: int, steps: int, hidden: int = 512, heads: int = 4) -> Runs:
    """mLSTM and causal attention over rows of `steps` tokens."""
    import torch

    shape = (rows, steps, hidden)
    xs = jax.random.normal(jax.random.key(0), shape, "bfloat16")
    layer = layers.MLSTM(hidden, hidden, num_heads=heads, dtype="bfloat16", rngs=nnx.Rngs(0))

    class Attention(torch.nn.Module):
        """Projections, causal attention, an output map: the products of a layer of the same width."""

        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(hidden, 3 * hidden)
            self.out = torch.nn.Linear(hidden, hidden)

        def forward(self, xs: Any) -> Any:
            """(B, T, D) to (B, T, D)."""
            q, k, v = (a.unflatten(-1, (heads, -1)).transpose(1, 2) for a in self.project(xs).chunk(3, -1))
            ys = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(ys.transpose(1, 2).flatten(2))

    runs: dict[str, Any] = {
        "MLSTM": layer_program(layer, xs, backward=True),
        "torch attention": torch_run(Attention(), shape, "bfloat16", backward=True),
    }
    return runs, {}


def decode_group(batch: int, hidden: int = 768) -> Runs:
    """One token of a stream, the carry coming back."""
    import torch

    xs = jax.random.normal(jax.random.key(0), (batch, 1, hidden))
    runs: dict[str, Any] = {}
    for name in ("QLSTM", "LSTM", "GRU", "SLSTM", "MLSTM", "PRLSTM", "MinGRU"):
        layer = getattr(layers, name)(hidden, hidden, rngs=nnx.Rngs(0))
        graph, state = nnx.split(layer)

        def step(state: Any, carry: Any, xs: jax.Array, graph: Any = graph) -> Any:
            return nnx.merge(graph, state)(xs, initial_carry=carry, return_carry=True)

        runs[name] = Program(step, state, layer.initialize_carry(batch), xs)
    module = torch.nn.LSTM(hidden, hidden, batch_first=True)
    runs["torch LSTM"] = torch_run(module, xs.shape, "float32", backward=False)
    return runs, {}


def main() -> None:
    """Times the groups of the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file of lines")
    every = ["recurrent", "reduce", "mlstm", "decode"]
    parser.add_argument("--parts", nargs="+", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a group's rounds")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script itself")
    args = parser.parse_args()
    lines = Lines(args.out)
    wanted = [group for group in groups(args.parts, quick=args.quick) if not lines.has(group[1])]
    for part, key, make in wanted:
        runs, refused = make()
        refused |= compile_all(runs)
        for name in refused:
            runs.pop(name, None)
        write(lines, part, key, runs, refused, rounds=args.rounds, seconds=args.seconds)


def write(
    lines: Lines, part: str, group: str, runs: dict[str, Any], refused: dict[str, str], *, rounds: int, seconds: float
) -> None:
    """Times a group and adds its lines."""
    taken = time_in_turn(runs, rounds=rounds, seconds=seconds)
    medians = {name: summary(ms)["ms"] for name, ms in taken.items()}
    for name, ms in taken.items():
        ratios = {p: round(medians[run] / medians[name], 2) for p, run in PEERS.items() if run in medians}
        run = runs[name]
        if isinstance(run, Program):
            ratios |= {"compile_s": round(run.compile_seconds, 1), "temporary_mib": round(run.temporary_mib, 1)}
        lines.add(part, f"{group} | {name}", run=name, **summary(ms), **ratios)
    for name, error in refused.items():
        lines.add(part, f"{group} | {name}", run=name, refused=error)
    lines.add(part, group, done=True)


if __name__ == "__main__":
    main()
