"""The stubs that editors and type checkers read are those of the cells as they are."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "stubs.py"


def test_stubs_are_up_to_date():
    assert runpy.run_path(str(SCRIPT))["main"](["--check"]) == 0, "run python scripts/stubs.py"
