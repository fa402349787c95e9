import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {})


def test_configs_that_it_names_exist_and_all_are_named():
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    named = {name.split(":")[0] for name in re.findall(r"`(\w+\.py(?::[A-Z,]+)?)`", rows)}
    assert named == {p.name for p in (ROOT / "configs").glob("*.py")} - {"__init__.py"}


def test_links_and_pictures_exist():
    links = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert links
    assert [target for target in links if not (ROOT / target).exists()] == []
