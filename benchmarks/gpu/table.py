"""Writes the tables of a file of lines as Markdown.

python benchmarks/gpu/table.py results/gpu/lines.jsonl > docs/gpu_results.md
"""

import json
import sys
from pathlib import Path
from typing import Any

Line = dict[str, Any]
HEADER = [
    "# Measured on a GPU",
    "",
    "Written by `python benchmarks/gpu/table.py results/gpu/lines.jsonl`, from the lines of `benchmarks/gpu_check.sh`. "
    "[gpu.md](gpu.md) says what they mean.",
    "",
]
PEERS = {"torch": "torch LSTM (cuDNN)", "cudnn": "jax cuDNN LSTM", "flax": "flax LSTM"}


def about(lines: list[Line]) -> list[str]:
    """Where and with what the lines were measured, a sentence for each that differs."""
    kinds = dict.fromkeys(
        f"{x['device']}, driver {x['driver']}, {', '.join(' '.join(v) for v in x['versions'].items())}, "
        f"commit {x['commit']}"
        for x in lines
    )
    return [f"Measured on {kind}." for kind in kinds]


def correctness(lines: list[Line]) -> list[str]:
    """How many checks are within their bounds, the largest errors, and the failures by name."""
    found = ["", "## Correctness", ""]
    for kind in ("float32", "bfloat16", "sampler"):
        checks = [x for x in lines if kind in x["key"]]
        errors = [v[0] for x in checks for k, v in x.items() if k in ("value", "carry", "gradient", "strings")]
        good = sum(x["ok"] for x in checks)
        found.append(f"- {kind}: {good} of {len(checks)} within the bound, largest error {max(errors, default=0):.1e}")
    return found + [f"- out of bounds: {x['key']}" for x in lines if not x["ok"]]


def times(lines: list[Line]) -> list[str]:
    """A table for each group of runs that took turns."""
    found: list[str] = []
    for group in dict.fromkeys(x["key"].split(" | ")[0] for x in lines):
        rows = [x for x in lines if x["key"].startswith(f"{group} | ")]
        peers = [peer for peer in PEERS if any(peer in x for x in rows)]
        found += ["", f"### {group}", "", "| " + " | ".join(["run", "ms", "range", *(PEERS[p] for p in peers)]) + " |"]
        found.append("|---|--:|---|" + "--:|" * len(peers))
        for x in rows:
            if "ms" in x:
                ratios = [f"{x[p]:g}" if p in x else "" for p in peers]
                cells = [x["run"], f"{x['ms']:g}", f"{x['least']:g}..{x['most']:g}", *ratios]
                found.append("| " + " | ".join(cells) + " |")
        found += [f"\n{x['run']}: {x['refused']}" for x in rows if "refused" in x]
    return found


def kernels(lines: list[Line]) -> list[str]:
    """What runs on the GPU in a pass of each layer."""
    found = [
        "",
        "## Kernels",
        "",
        "| layer | ms | of it in kernels | kernels a token | longest |",
        "|---|--:|--:|--:|---|",
    ]
    for x in lines:
        longest = "; ".join(f"{name} {count} times, {ms:g} ms" for name, count, ms in x["longest"][:3])
        name = x["key"].removeprefix("kernels ")
        found.append(f"| {name} | {x['ms']:g} | {x['kernels_ms']:g} | {x['kernels_per_token']:g} | {longest} |")
    return found


def work(lines: list[Line]) -> list[str]:
    """Whole runs."""
    found = [
        "",
        "## Whole runs",
        "",
        "| run | seconds | to the target | steps a second | test |",
        "|---|--:|--:|--:|---|",
    ]
    for x in lines:
        test = ", ".join(f"{k} {v:.4f}" for k, v in x["test"].items() if k in ("accuracy", "macro_f1", "score"))
        target = x["seconds_to_target"] or ""
        found.append(f"| {x['key']} | {x['seconds']:g} | {target} | {x['steps_per_second']:g} | {test} |")
    return found


def main() -> None:
    """Prints the tables of the parts that the file has."""
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    parts = {
        name: [x for x in lines if x["part"] == name and "done" not in x]
        for name in dict.fromkeys(x["part"] for x in lines)
    }
    found = [*HEADER, *about(lines)]
    if "correctness" in parts:
        found += correctness(parts.pop("correctness"))
    last = [write(parts.pop(name)) for name, write in (("kernels", kernels), ("work", work)) if name in parts]
    if parts:
        found += [
            "",
            "## Times",
            "",
            "Milliseconds, the median and the range; under a peer's name, how many times as long it takes.",
        ]
    for rows in parts.values():
        found += times(rows)
    print("\n".join(found + [line for part in last for line in part]))


if __name__ == "__main__":
    main()
