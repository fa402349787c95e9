"""Imports within the package go one way, and rooms that compute neither read files nor have flags, logs or pictures."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qlstm_jax"

# Each room of the package and the others that it may import, from the bottom up. `cells.*` is each cell, a room of its
# own; `cells` and `qlstm_jax` are the two __init__.py that register cells and rooms.
CELLS = ["cells.common", "cells.*", "cells"]
LAYERS = [*CELLS, "stack", "describe", "nnx", "linen"]
ROOMS = {
    "data": [],
    "cells.common": [],
    "cells.*": ["cells.common"],
    "cells": ["cells.common", "cells.*"],
    "stack": ["cells.common"],
    "shardings": [],
    "describe": ["cells.common"],
    "nnx": [*CELLS, "stack", "describe"],
    "linen": [*CELLS, "stack", "describe"],
    "models": [*CELLS, "stack", "describe", "nnx"],
    "interop": [*CELLS, "nnx", "models"],
    "saving": [*LAYERS, "models", "interop"],
    "qlstm_jax": [*LAYERS, "models", "interop", "saving", "data"],
    "exporting": ["cells.common", "models", "saving", "qlstm_jax"],
    "problems": [*LAYERS, "shardings", "models", "data", "qlstm_jax"],
    "training": [*LAYERS, "shardings", "models", "data", "problems", "qlstm_jax"],
    "console": ["data", "problems", "training"],
    "studies": [*LAYERS, "models", "data", "problems", "training", "console", "qlstm_jax"],
    "commands": [*LAYERS, "models", "data", "problems", "training", "console", "studies", "exporting", "qlstm_jax"],
}

# Modules from elsewhere that only some may import: rooms, or single modules.
OUTSIDE = [
    (["absl", "argparse"], ["console", "studies", "commands"]),
    (["logging"], ["training", "console", "studies", "commands"]),
    (["tensorboardX", "tqdm"], ["training", "console", "studies", "commands"]),
    (["matplotlib"], ["problems.plots"]),
    (
        [
            "csv",
            "fileinput",
            "glob",
            "io",
            "json",
            "os",
            "pathlib",
            "pickle",
            "shutil",
            "subprocess",
            "tempfile",
            "urllib",
        ],
        ["data", "saving", "exporting", "problems", "training", "console", "studies", "commands"],
    ),
]


def name_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module):
    """qlstm_jax.nnx.layers stands in `nnx`, qlstm_jax.cells.lstm in `cells.*`."""
    _, *parts = module.split(".")
    if parts[:1] == ["cells"] and len(parts) > 1:
        return "cells.common" if parts[1] == "common" else "cells.*"
    return parts[0] if parts else "qlstm_jax"


def imports(module, source):
    """(line, name) of each import, names absolute; those of the package are names of modules."""
    is_package = module in MODULES and MODULES[module].stem == "__init__"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def violations(module, source):
    """One line for each import of `source` that the tables do not allow."""
    room = room_of(module)
    if room not in ROOMS:
        return [f"{module}: {room} is not in the table ROOMS; say there what this room may import"]
    found = []
    for line, name in imports(module, source):
        top, *inner = name.split(".")
        if top == "qlstm_jax":
            other = room_of(name)
            own = other == room and (room != "cells.*" or inner[1] == module.split(".")[2])
            if not own and other not in ROOMS[room]:
                allowed = f"its own room, {', '.join(ROOMS[room])}".removesuffix(", ")
                found.append(f"{module}, line {line}, imports {name}; a module of {room} may import {allowed}")
        for libraries, places in OUTSIDE:
            if top in libraries and not {room, module.removeprefix("qlstm_jax.")} & {*places}:
                found.append(f"{module}, line {line}, imports {name}; expected only in {', '.join(places)}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_allowed(module):
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_the_table_goes_one_way():
    list(graphlib.TopologicalSorter(ROOMS).static_order())  # else a CycleError that names the rooms


def test_no_module_imports_itself_through_others():
    graph = {m: {name for _, name in imports(m, path.read_text(encoding="utf-8"))} for m, path in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("cells.lstm", "from qlstm_jax.nnx import LSTM", "line 1, imports qlstm_jax.nnx; a module of cells.* may"),
        ("cells.lstm", "\nfrom qlstm_jax.cells import gru", "line 2, imports qlstm_jax.cells.gru"),
        ("cells.lstm", "from qlstm_jax.cells import CELLS", "imports qlstm_jax.cells;"),
        ("cells.pr_lstm.cell", "from ..common import scan\nfrom .. import lstm", "imports qlstm_jax.cells.lstm"),
        ("cells.common.scan", "def f():\n    import qlstm_jax.stack", "may import its own room"),
        ("nnx.layers", "from qlstm_jax import linen", "imports qlstm_jax.linen"),
        ("models.xlstm", "from qlstm_jax.data.text import read", "imports qlstm_jax.data.text"),
        ("data.text", "from qlstm_jax.cells.common import where", "imports qlstm_jax.cells.common"),
        ("problems.text", "import qlstm_jax.training.step", "imports qlstm_jax.training.step"),
        ("studies.study", "from qlstm_jax.commands import train", "imports qlstm_jax.commands.train"),
        ("models.generate", "from pathlib import Path", "imports pathlib; expected only in data"),
        ("problems.text", "from absl import logging", "imports absl; expected only in console, studies, commands"),
        ("cells.common.scan", "import logging", "expected only in training, console,"),
        ("problems.text", "import matplotlib.pyplot", "expected only in problems.plots"),
        ("kernels.lstm", "import jax", "kernels is not in the table ROOMS"),
    ],
)
def test_what_is_not_allowed_is_named(module, source, message):
    (violation,) = violations(f"qlstm_jax.{module}", source)
    assert message in violation


def test_what_is_allowed():
    source = (
        "import jax\nfrom ..common import scan\nfrom . import tree\nfrom qlstm_jax.cells.pr_lstm.merge import State"
    )
    assert violations("qlstm_jax.cells.pr_lstm.cell", source) == []
    assert violations("qlstm_jax.problems.plots", "import matplotlib.pyplot as plt\nfrom qlstm_jax import data") == []
