"""Config files by path or by name: the configs in the repository's configs/ travel in the package.

"formal.py:bucket_sort,lstm" is a file and the argument of its `get_config`. The file may be a path, or the name of a
packaged config, with or without ".py" and "configs/".
"""

import difflib
import importlib.util
import os
import re
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path

from ml_collections import ConfigDict

from qlstm_jax.data import files
from qlstm_jax.training.config import ConfigError


def folder() -> Path:
    """Returns the folder of the packaged configs: in the installed package, or configs/ beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Returns the names of the packaged configs."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def resolve(text: str) -> tuple[Path, str]:
    """Finds a config file.

    A path that exists wins over a packaged config of the same name.

    Args:
        text: "FILE" or "FILE:ARGUMENT", FILE a path or the name of a packaged config.

    Returns:
        (path, argument), the argument "" if there is none.

    Raises:
        ConfigError: if there is no such file.
    """
    file, _, argument = text.partition(":")
    path = Path(file)
    if path.is_file():
        return path, argument
    packaged = folder() / f"{path.stem}.py"
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".py") and path.stem in names():
        return packaged, argument
    if path.name and os.path.lexists(path):
        return path, argument  # a folder, a pipe or a broken link: who reads it says so
    near = difflib.get_close_matches(path.stem, names(), n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"--config={file} does not exist; {hint}expected a config file, or one of {', '.join(names())} (in {folder()})"
    )


def allow_imports(path: Path) -> None:
    """Lets the config at `path` import others, `from configs import NAME`: those beside it, then the packaged ones."""
    spec = ModuleSpec("configs", loader=None, is_package=True)
    spec.submodule_search_locations = [str(path.parent.absolute()), str(folder())]
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        del sys.modules[name]  # of a config in another folder
    sys.modules["configs"] = importlib.util.module_from_spec(spec)


def load(text: str) -> ConfigDict:
    """Loads the config of "FILE" or "FILE:ARGUMENT", as `qlstm-train --config` reads it.

    Args:
        text: as for `resolve`.

    Returns:
        What the file's `get_config` returns.

    Raises:
        ConfigError: if there is no such file, it has no `get_config`, or that fails, naming the file and its line.

    Example:
        config = load("formal.py:bucket_sort,lstm")
    """
    path, argument = resolve(text)
    allow_imports(path)
    spec = importlib.util.spec_from_file_location("qlstm_jax_config", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; expected a config file that ends in .py")
    source = files.read_text(path, "expected a config file, Python in UTF-8")
    module = importlib.util.module_from_spec(spec)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{path} defines no get_config()")
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}{_line(path, error)}: {_reason(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"{path}: get_config() gives a {type(config).__name__}; expected the ConfigDict of "
            "qlstm_jax.training.config.default(), changed at will"
        )
    return config


def _line(path: Path, error: Exception) -> str:
    """ ":LINE" of the config file where it failed, "" if it was not there."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _reason(error: Exception) -> str:
    """Returns the error in one line; of ml_collections' text on a missing key, only its nearest key."""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    key, near = (
        re.search(pattern, text) for pattern in (r'Key \\?"(.+?)\\?" does not', r'Did you mean \\?"(.+?)\\?" ')
    )
    if key and isinstance(error, AttributeError | KeyError):
        return f"there is no key {key[1]!r}" + (f"; did you mean {near[1]!r}?" if near else "")
    return f"{type(error).__name__}: {text}"
