"""Says which kernels a layer's forward and backward pass runs on the GPU, how often for each token, and how long.

    python benchmarks/gpu/kernels.py --out results/gpu/lines.jsonl

The time of a pass is compared with the sum of its kernels' times: what is left is the time in which the GPU waits.
"""

import argparse
import glob
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from lines import Lines
from timing import layer_program, summary, time_in_turn

from qlstm_jax import nnx as layers

SIZES = {
    "QLSTM": (16, 1024, 768),
    "LSTM": (16, 1024, 768),
    "PRLSTM": (16, 1024, 768),
    "MLSTM": (16, 1024, 768),
}


def kernels_of(trace: str) -> dict[str, list[float]]:
    """Microseconds of every run of each kernel in a trace."""
    found: dict[str, list[float]] = defaultdict(list)
    (path,) = glob.glob(f"{trace}/**/*.xplane.pb", recursive=True)
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" in line.name:
                for event in line.events:
                    found[event.name].append(event.duration_ns / 1e3)
    return found


def profile(name: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """The figures of a layer."""
    _, steps, hidden = size
    xs = jax.random.normal(jax.random.key(0), size, "bfloat16")
    layer = getattr(layers, name)(hidden, hidden, dtype="bfloat16", rngs=nnx.Rngs(0))
    run = layer_program(layer, xs, backward=True)
    run.compile()
    ms = summary(time_in_turn({name: run}, rounds=5, seconds=5)[name])["ms"]
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        kernels = kernels_of(folder)
    total = sorted(((sum(us), len(us), kernel) for kernel, us in kernels.items()), reverse=True)
    return {
        "ms": ms,
        "kernels_ms": round(sum(us for us, _, _ in total) / 1e3, 3),
        "kernels_per_token": round(sum(n for _, n, _ in total) / steps, 2),
        "longest": [[kernel[:60], n, round(us / 1e3, 3)] for us, n, kernel in total[:10]],
    }


def main() -> None:
    """Profiles each layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file of lines")
    args = parser.parse_args()
    lines = Lines(args.out)
    for name, size in SIZES.items():
        key = f"kernels {name} B {size[0]} T {size[1]} H {size[2]} bfloat16 forward+backward"
        if not lines.has(key):
            lines.add("kernels", key, **profile(name, size))


if __name__ == "__main__":
    main()
