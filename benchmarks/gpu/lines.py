"""Lines of JSON that a check adds to as it goes, so that one that is cut off goes on where it stopped."""

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax


def commit() -> str:
    """The commit of the source beside this file, or what QLSTM_COMMIT says where there is no repository."""
    given = os.environ.get("QLSTM_COMMIT", "")
    if given:
        return given
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def driver() -> str:
    """The version of NVIDIA's driver."""
    run = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip().split("\n")[0]


class Lines:
    """A file of results, one JSON object a line, each found again by its `key` and the commit."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.header = {
            "commit": commit(),
            "device": jax.devices()[0].device_kind,
            "driver": driver() if jax.default_backend() == "gpu" else "",
            "versions": {"python": sys.version.split()[0]}
            | {name: metadata.version(name) for name in ("jax", "flax", "torch") if find_spec(name)},
        }
        mine = self.header["commit"], self.header["device"]
        found = [json.loads(line) for line in lines]
        self.keys = {line["key"] for line in found if (line["commit"], line["device"]) == mine}

    def has(self, key: str) -> bool:
        """Whether this commit has a line of that key."""
        return key in self.keys

    def add(self, part: str, key: str, **values: Any) -> None:
        """Appends a line, in one write, and prints it."""
        self.keys.add(key)
        with self.path.open("a") as file:
            file.write(json.dumps({"part": part, "key": key} | values | self.header) + "\n")
        print(part, key, " ".join(f"{name}={value}" for name, value in values.items()), flush=True)
