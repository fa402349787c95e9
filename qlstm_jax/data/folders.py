"""Hidden files and folders, which are never data."""

from collections.abc import Iterable
from pathlib import Path


def is_hidden(path: Path) -> bool:
    """Returns whether a file is hidden: a name in its path below the folder begins with "." or is __MACOSX.

    Such are .ipynb_checkpoints, .DS_Store, and what macOS writes beside files, ._a.txt.
    """
    return any(name.startswith(".") or name == "__MACOSX" for name in path.parts)


def part_hidden(root: Path, paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Returns the paths below `root` that are not hidden, in their order, and a note of the others, if any."""
    kept: list[Path] = []
    hidden: list[Path] = []
    for path in paths:
        (hidden if is_hidden(path.relative_to(root)) else kept).append(path)
    if not hidden:
        return kept, []
    return kept, [f"{root}: hidden files left out: {len(hidden)}, the first {min(hidden)}"]
