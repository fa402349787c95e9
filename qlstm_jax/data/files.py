"""Files at the door: what cannot be read as a file is refused in one line with its path, and nothing waits for ever."""

import codecs
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from qlstm_jax.data.rows import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_path(path: str | os.PathLike[str], hint: str, *, folder: bool = False) -> Path:
    """Returns the path of an existing file, with ~ expanded. Refuses a pipe: reading one waits for who writes it.

    Args:
        path: of the file.
        hint: what to give, "expected a UTF-8 file of lines".
        folder: whether a folder will do too.

    Raises:
        DataError: if there is none, or it is none.
    """
    path = Path(path).expanduser()
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist (the current folder is {Path.cwd()}); {hint}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}); {hint}") from error
    if kind != stat.S_IFREG and not (folder and kind == stat.S_IFDIR):
        raise DataError(f"{path} is {_KINDS.get(kind, 'no regular file')}; {hint}")
    return path


def read_bytes(path: str | os.PathLike[str], hint: str) -> bytes:
    """Reads a file; arguments and errors as for `check_path`."""
    path = check_path(path, hint)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}); {hint}") from error


def read_text(path: str | os.PathLike[str], hint: str) -> str:
    """Reads a file of UTF-8, without a byte-order mark; arguments as for `check_path`.

    Raises:
        DataError: as for `check_path`, or for bytes that are no text, naming their line.
    """
    content = read_bytes(path, hint).removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte 0x{content[error.start]:02x}"
        raise DataError(f"{path}:{line}: not UTF-8 ({found}); {hint}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: a zero byte, as in binary files and UTF-16; {hint}")
    return text


def read_json(path: str | os.PathLike[str], hint: str) -> Any:
    """Reads a file of JSON; arguments as for `check_path`.

    Raises:
        DataError: as for `read_text`, or if it is no JSON, naming its line.
    """
    try:
        return json.loads(read_text(path, hint))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: no JSON ({error.msg}): the file is damaged; {hint}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "its links lead in a circle"
    return str(getattr(error, "strerror", None) or error)
