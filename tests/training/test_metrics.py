import io

import numpy as np

from qlstm_jax.training import metrics


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
