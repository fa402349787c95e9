"""What is no file of text is refused in one line with its path."""

import os
import socket

import pytest

from qlstm_jax.data import files
from qlstm_jax.data.rows import DataError

HINT = "expected a UTF-8 file"


def odd_files(folder, suffix=""):
    """Name to (path, part of what is said of it)."""
    made = {
        name: folder / f"{name}{suffix}"
        for name in ("folder", "pipe", "loop", "broken", "binary", "latin", "utf16", "missing")
    }
    made["folder"].mkdir()
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(f"loop{suffix}")
    made["broken"].symlink_to("nowhere")
    made["binary"].write_bytes(b"text\nand \0 zeros\n")
    made["latin"].write_bytes("one\ntwo\ncafé\n".encode("latin-1"))
    made["utf16"].write_bytes("text".encode("utf-16"))
    said = {
        "folder": "is a folder",
        "pipe": "is a named pipe",
        "loop": "its links lead in a circle",
        "broken": "does not exist",
        "binary": f"binary{suffix}:2: a zero byte",
        "latin": f"latin{suffix}:3: not UTF-8 (byte 0xe9)",
        "utf16": f"utf16{suffix}:1: not UTF-8 (UTF-16)",
        "missing": "does not exist (the current folder is",
    }
    return {name: (path, said[name]) for name, path in made.items()}


def test_each_is_named(tmp_path):
    for path, part in odd_files(tmp_path).values():
        with pytest.raises(DataError) as caught:
            files.read_text(path, HINT)
        message = str(caught.value)
        assert str(path) in message and part in message and message.endswith(HINT)
    for path, part in (("/dev/null", "is a device"), (tmp_path / ("x" * 999), "name too long"), ("a\0b", "null")):
        with pytest.raises(DataError, match=rf"(?i){part}"):
            files.read_bytes(path, HINT)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(DataError, match="is a socket"):
            files.read_bytes(tmp_path / "s", HINT)
    assert files.check_path(tmp_path, HINT, folder=True) == tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_unreadable(tmp_path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0)
    with pytest.raises(DataError, match=r"x cannot be read \(Permission denied\)"):
        files.read_text(tmp_path / "x", HINT)


def test_text_and_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a":\n "\xc3\xa4"}')
    assert files.read_text(path, HINT) == '{"a":\n "ä"}'
    assert files.read_json(path, HINT) == {"a": "ä"}
    path.write_text('{"a":\n 1,')
    with pytest.raises(DataError, match=r"a\.json:2: no JSON \(.*\): the file is damaged; expected"):
        files.read_json(path, HINT)
