"""Writes the type stubs of qlstm_jax.nnx and qlstm_jax.linen, whose classes are made from the table of cells.

    python scripts/stubs.py            writes qlstm_jax/nnx/__init__.pyi and qlstm_jax/linen/__init__.pyi
    python scripts/stubs.py --check    says whether they are up to date; tests/test_stubs.py does the same

Editors and type checkers read stubs: completion shows the options of each cell, which are written in its `init` alone.
"""

import inspect
import sys
from pathlib import Path

from qlstm_jax import linen, nnx
from qlstm_jax.cells import CELLS
from qlstm_jax.cells.common import cell_options
from qlstm_jax.describe import cell_class_name

PACKAGE = Path(__file__).resolve().parents[1] / "qlstm_jax"
TYPES = {"rngs": "Rngs", "dtype": "DTypeLike | None", "param_dtype": "DTypeLike"}
TYPES |= {f"{kind}_init": "Initializer | None" for kind in ("kernel", "recurrent_kernel", "bias", "carry")}
TYPES |= {f"{kind}_metadata": "Mapping[str, Any]" for kind in ("kernel", "recurrent_kernel", "bias")}
IMPORTS = {
    nnx: """from collections.abc import Mapping
from typing import Any

from flax.nnx import Rngs
from jax.typing import DTypeLike

from qlstm_jax.describe import Initializer
from qlstm_jax.nnx import pr_lstm as _pr_lstm
from qlstm_jax.nnx.cells import Cell as Cell
from qlstm_jax.nnx.layers import Layer as Layer
from qlstm_jax.nnx.protocol import SequenceLayer as SequenceLayer
""",
    linen: """from qlstm_jax.linen import pr_lstm as _pr_lstm
from qlstm_jax.linen.cells import Cell as Cell
from qlstm_jax.linen.layers import Layer as Layer
""",
}


def annotation(parameter: inspect.Parameter) -> str:
    """The text of a parameter's type."""
    if parameter.name in TYPES:
        return TYPES[parameter.name]
    found = parameter.annotation
    return found.__name__ if isinstance(found, type) else str(found)


def default(parameter: inspect.Parameter) -> str:
    """ " = value" for a plain value, " = ..." for another, nothing where there is none."""
    if parameter.default is parameter.empty:
        return ""
    plain = parameter.default is None or type(parameter.default) in (bool, int, float, str)
    return f" = {parameter.default!r}".replace("'", '"') if plain else " = ..."


def nnx_class(cls: type) -> str:
    """A class of qlstm_jax.nnx with its constructor."""
    lines, starred = [], False
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("        *,")
            starred = True
        lines.append(f"        {parameter.name}: {annotation(parameter)}{default(parameter)},")
    return "\n".join(["    def __init__(", "        self,", *lines, "    ) -> None: ..."])


def linen_class(cls: type) -> str:
    """The fields of a class of qlstm_jax.linen that its base class does not have."""
    fields = [f"    {p.name}: {annotation(p)}{default(p)}" for p in cell_options(cls.functions).values()]
    return "\n".join(fields) or "    pass"


def stub(package) -> str:
    """The text of a package's stub."""
    text = [f'"""Made by scripts/stubs.py from the cells; not to be edited."""\n\n{IMPORTS[package]}']
    body = nnx_class if package is nnx else linen_class
    for layer in CELLS:
        for name, base in ((cell_class_name(layer), "Cell"), (layer, "Layer")):
            cls = getattr(package, name)
            own = cls.__mro__[1]
            base = base if own.__module__.endswith((".cells", ".layers")) else f"_pr_lstm.{own.__name__}"
            text.append(f"\nclass {name}({base}):\n{body(cls)}\n")
    text.append("\nLAYERS: dict[str, type[Layer]]\n")
    return "".join(text)


def main(arguments: list[str]) -> int:
    """Writes or checks both stubs; the exit status."""
    stale = False
    for package in (nnx, linen):
        path, text = PACKAGE / package.__name__.rpartition(".")[2] / "__init__.pyi", stub(package)
        if "--check" in arguments:
            stale |= not path.exists() or path.read_text(encoding="utf-8") != text
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print("the stubs are not those of the cells: run python scripts/stubs.py", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
