"""What an installed package promises: light imports, console commands, packaged configs. No network is used."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

import qlstm_jax
from qlstm_jax.commands import programs
from qlstm_jax.training import config_files
from qlstm_jax.training.config import ConfigError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Modules whose distributions have another name.
MODULES = {"absl-py": "absl", "orbax-checkpoint": "orbax", "tensorflow-datasets": "tensorflow_datasets"}
CORE = ("cells", "nnx", "linen", "models", "interop")


def python(code, *, folder=ROOT, **environment):
    """Runs code in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def distribution(requirement):
    return re.match(r"[\w-]+", requirement)[0]


def test_the_extra_train_is_what_a_missing_module_is_blamed_on():
    assert sorted(programs.TRAIN) == sorted(MODULES.get(d, d) for d in map(distribution, EXTRAS["train"]))


def test_core_imports_nothing_of_the_extra_train():
    # Flax itself imports some of these: an import counts by the module that asks for it.
    done = python(
        f"""
import builtins, importlib, pkgutil
plain, seen = builtins.__import__, []
def watched(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {{}}).get("__name__", "").startswith("qlstm_jax"):
        seen.append(name.partition(".")[0])
    return plain(name, globals, locals, fromlist, level)
builtins.__import__ = watched
for room in {CORE}:
    package = importlib.import_module("qlstm_jax." + room)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import json
print(json.dumps(sorted(set(seen))))
"""
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    assert {"jax", "flax"} <= imported
    third_party = imported - set(sys.stdlib_module_names) - {"qlstm_jax"}
    assert third_party <= {distribution(d) for d in PROJECT["dependencies"]}


def test_importing_the_package_imports_no_jax_and_its_rooms_follow_on_demand():
    done = python(
        "import sys, qlstm_jax; assert 'jax' not in sys.modules and 'flax' not in sys.modules\n"
        "print(qlstm_jax.nnx.LSTM.__name__, qlstm_jax.linen.GRU.__name__, qlstm_jax.cells.ql_lstm.init.__name__)"
    )
    assert (done.returncode, done.stdout) == (0, "LSTM GRU init\n"), done.stderr


def test_completion_offers_the_rooms_and_unknown_names_are_refused():
    assert {"__version__", *CORE} <= set(dir(qlstm_jax))
    assert set(qlstm_jax.__all__) <= set(dir(qlstm_jax))
    with pytest.raises(AttributeError, match="'qlstm_jax' has no attribute 'torch'"):
        qlstm_jax.torch  # noqa: B018
    assert not hasattr(qlstm_jax, "kernel")


def test_console_commands_are_functions():
    assert set(PROJECT["scripts"]) == {
        f"qlstm-{name}" for name in ("train", "eval", "generate", "export", "study", "formal")
    }
    for target in PROJECT["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", ["train", "evaluate", "generate", "export", "study", "formal"])
def test_without_the_extra_a_command_ends_in_one_line(name):
    code = "import sys; sys.modules['ml_collections'] = None\n"
    done = python(code + f"from qlstm_jax.commands import programs; programs.{name}()")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "needs ml_collections, which is not installed" in line
    assert line.startswith("error: qlstm-") and line.endswith('pip install "qlstm_jax[train]"')


def test_another_missing_module_is_not_blamed_on_the_extra():
    code = "import sys; sys.modules['qlstm_jax.training.loop'] = None\n"
    done = python(code + "from qlstm_jax.commands import programs; programs.train()")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr and "pip install" not in done.stderr


def test_configs_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.names() == sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
    packaged = config_files.folder() / "formal.py"
    for text in ("formal", "formal.py", "configs/formal.py", "configs/formal"):
        assert config_files.resolve(text) == (packaged, "")
    assert config_files.resolve("formal:bucket_sort,lstm") == (packaged, "bucket_sort,lstm")
    (tmp_path / "formal.py").write_text("import ml_collections\ndef get_config(): return ml_collections.ConfigDict()\n")
    assert config_files.resolve("formal.py") == (Path("formal.py"), "")
    assert len(config_files.load("formal.py")) == 0
    config = config_files.load("formal:bucket_sort,gru")
    assert (config.formal.task, config.model.cell) == ("bucket_sort", "gru")


@pytest.mark.parametrize("text", ["parity_pr_lstn", "configs/parity_pr_lstm.pi", "else/quickstart.py", "__init__", ""])
def test_a_config_that_is_not_there_names_those_that_are(text):
    with pytest.raises(ConfigError, match=f"--config={text} does not exist; .*expected a config file, or one of addi"):
        config_files.resolve(text)


def test_the_nearest_config_is_named():
    with pytest.raises(ConfigError, match=r"did you mean recall_lstm or recall_ql_lstm\?"):
        config_files.resolve("recal_lstm")


def test_configs_import_those_beside_them_and_the_packaged_ones(tmp_path):
    (tmp_path / "base.py").write_text(
        "from configs import recall_lstm\n"
        "def get_config():\n    config = recall_lstm.get_config()\n    config.train.steps = 3\n    return config\n"
    )
    (tmp_path / "mine.py").write_text("from configs import base\nget_config = base.get_config\n")
    config = config_files.load(str(tmp_path / "mine.py"))
    assert (config.model.cell, config.train.steps) == ("lstm", 3)
    assert config_files.load("recall_lstm").train.steps == 300
    with pytest.raises(ImportError):  # a base that stood beside another config
        importlib.import_module("configs.base")


def test_a_config_needs_get_config(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=r"empty.py defines no get_config\(\)"):
        config_files.load(str(tmp_path / "empty.py"))
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ConfigError, match="not a Python file"):
        config_files.load(str(tmp_path / "text.txt"))


def test_oldest_versions_are_the_lower_bounds():
    """What the workflow tests as oldest is what the project says that it supports."""
    lines = (ROOT / ".github" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = PROJECT["dependencies"] + EXTRAS["train"] + EXTRAS["digits"] + EXTRAS["parquet"] + EXTRAS["serve"]
    bounds = {distribution(r): Version(re.search(r">=([\d.]+)", r)[1]) for r in wanted}
    assert {name: Version(version) for name, version in oldest.items()} == bounds | {"jaxlib": bounds["jax"]}
