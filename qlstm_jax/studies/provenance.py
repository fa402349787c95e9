"""The origin of a line of results: command, versions, machine, commit."""

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import flax
import jax

import qlstm_jax


def provenance() -> dict[str, object]:
    """Returns command, versions of Python, jax, flax and this package, processor and cores, and the commit that ran."""
    return {
        "command": command(sys.argv),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "qlstm_jax": qlstm_jax.__version__,
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": commit(),
    }


def command(argv: list[str]) -> str:
    """Returns the command line, with files by their names alone: folders are those of one machine."""
    program = Path(argv[0])
    start = f"python -m qlstm_jax.{program.parent.name}.{program.stem}" if program.suffix == ".py" else program.name
    return " ".join([start, *(shlex.quote(without_folders(a)) for a in argv[1:])])


def without_folders(text: str) -> str:
    """Returns `text` with each absolute path in it cut down to its last name."""
    return re.sub(r"(?<![\w.~-])(?:/[\w.~ -]+)+/(?=[\w.~-])", "", text)


def processor() -> str:
    """Returns the processor's name, from Linux, or else from the platform module."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """Returns the commit of the repository that the package lies in, with a + where files differ; None outside one."""
    root = Path(qlstm_jax.__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    return head if head is None else head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
