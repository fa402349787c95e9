import io
import json
import os

import numpy as np
import pytest

from qlstm_jax.training import metrics, records
from qlstm_jax.training.faults import WorkdirError, WriteError
from tests.training.conftest import read_events, read_metrics


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_speed_and_time_left():
    stream = Terminal()
    progress = metrics.Progress(0, 60, stream)
    progress.log(20, 1000.0, {"loss": 0.5})
    progress.say("a line between")
    progress.close()
    shown = stream.getvalue()
    assert "20/60" in shown and "step/s" in shown and "tokens/s" in shown and "loss 0.5000" in shown and "<" in shown
    assert "a line between\n" in shown


def test_a_file_gets_plain_lines():
    stream = io.StringIO()
    progress = metrics.Progress(10, 60, stream)
    speeds = progress.log(20, 1000.0, {"loss": 0.5})
    assert stream.getvalue().startswith("step 20/60  loss 0.5000")
    assert "ETA 0:00:" in stream.getvalue() and "\r" not in stream.getvalue()
    assert np.isclose(speeds["tokens_per_second"] / speeds["steps_per_second"], 100.0)


def written(folder, steps, start=0):
    """What a run that goes on from `start` leaves in a folder."""
    writer = metrics.Writer(folder, start)
    for step in steps:
        writer.write(step, "train", {"loss": 1.0 / step})
    return writer


def test_tensorboard_has_each_point_once(tmp_path):
    written(tmp_path, [2, 4, 6])  # neither flushed nor closed: a run that is killed does neither
    before = {(r["step"], r["time"]) for r in read_metrics(tmp_path)}
    assert [e[:2] for e in read_events(tmp_path)] == [("train/loss", 2), ("train/loss", 4), ("train/loss", 6)]
    (tmp_path / "tensorboard" / "notes.txt").write_text("of the user's own")
    written(tmp_path, [6, 8], start=4).close()
    events = read_events(tmp_path)
    assert [e[1] for e in events] == [2, 4, 6, 8]
    np.testing.assert_allclose([e[2] for e in events], [1 / 2, 1 / 4, 1 / 6, 1 / 8], rtol=1e-6)
    assert {(e[1], e[3]) for e in events[:2]} < before
    assert sum(1 for _ in (tmp_path / "tensorboard").iterdir()) == 2
    # Lost files are made anew of the figures.
    for path in (tmp_path / "tensorboard").iterdir():
        path.unlink()
    written(tmp_path, [], start=8).close()
    assert [e[1] for e in read_events(tmp_path)] == [2, 4, 6, 8]


LINE = '{"step": 2, "split": "train", "loss": 1.0}'


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (LINE[:-9] + "\n" + LINE + "\n", 1, "line 1 column"),
        (LINE + "\n[1]\n", 2, "it has no step"),
        (LINE + '\n{"step": 2.5, "split": "train"}\n', 2, "it has no step"),
        (LINE.replace("train", "test") + "\n", 1, "its split is 'test'; expected train or validation"),
        (LINE.replace("1.0", '"low"') + "\n", 1, "loss is 'low'; expected a number"),
        ("\udcff\n" + LINE, 1, "invalid start byte"),
    ],
)
def test_a_line_that_is_no_record(content, line, reason, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(WorkdirError, match=rf"metrics\.jsonl:{line} is no line of figures \(.*{reason}") as caught:
        records.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "count"), [("", 1), (LINE, 2), (LINE[:-3], 1), ("\0\0\0", 1), ("\r\n\n" + LINE + "\r\n", 2)]
)
def test_a_last_line_without_its_end(end, count, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(LINE + "\n" + end)
    assert records.read(tmp_path) == count * [json.loads(LINE)]


def test_a_disk_without_room(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(LINE + "\n")
    (tmp_path / "metrics.jsonl.unfinished").symlink_to("/dev/full")
    message = r"^.*metrics\.jsonl cannot be written: No space left on device$"
    with pytest.raises(WriteError, match=message):
        written(tmp_path, [], start=2)
    assert records.read(tmp_path) == [json.loads(LINE)]  # nothing is lost
    os.unlink(tmp_path / "metrics.jsonl.unfinished")
    writer = written(tmp_path, [2])
    place = writer.file.fileno()
    full, nowhere = (os.open(path, os.O_WRONLY) for path in ("/dev/full", os.devnull))
    os.dup2(full, place)
    with pytest.raises(WriteError, match=message):
        writer.write(4, "train", {"loss": 1.0})
    os.dup2(nowhere, place)  # what it still holds
    writer.close()
