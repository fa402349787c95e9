"""Runs of two real processes that speak over the loopback interface."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qlstm_jax.training import hosts
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate
from qlstm_jax.training.loop import train
from tests.training.conftest import read_metrics
from tests.training.test_meshes import config_of

ROOT = Path(__file__).parents[2]
SECONDS = 240  # after which a run of processes is ended
MESH = "data:2,fsdp:2"  # of two processes with two devices each

CONFIG = """
import json
from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.update(json.loads({text!r}))
    return config
"""


class Processes:
    """Processes of train.py that train one run together; at the end of a `with` none of them is left."""

    def __init__(self, config, folder, count=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        path = folder / "config.py"
        path.write_text(CONFIG.format(text=json.dumps(config.to_dict())))
        env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        env |= {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "train.py", f"--config={path}", f"--workdir={folder / 'many'}"]
        flags = [f"--coordinator={address}", f"--num_processes={count}"]
        self.all = [
            subprocess.Popen(
                [*command, *flags, f"--process_id={number}"],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(count)
        ]

    def __enter__(self):
        return self

    def end(self):
        """[(exit code, output)] of all, which end within the bound."""
        last = time.monotonic() + SECONDS
        outputs = [p.communicate(timeout=max(1, last - time.monotonic()))[0] for p in self.all]
        return list(zip([p.returncode for p in self.all], outputs, strict=True))

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
            process.wait()


def losses(workdir):
    return [r["loss"] for r in read_metrics(workdir) if r["split"] == "train"]


@pytest.mark.parametrize("kind", ["formal", "text"])
def test_two_processes_train_the_run_of_one(kind, tmp_path):
    def config(steps, mesh):
        return config_of(kind, tmp_path, mesh, train__steps=steps, train__select="best", model__num_layers=1)

    result = train(config(8, ""), tmp_path / "one")
    with Processes(config(4, MESH), tmp_path) as processes:
        (code, said), (other, quiet) = processes.end()
    assert (code, other) == (0, 0), said + quiet
    assert "step 4/4" in said and "step" not in quiet
    # What they saved goes on in one process.
    assert train(config(8, "fsdp:8"), tmp_path / "many") == pytest.approx(result, abs=1e-5)
    np.testing.assert_allclose(losses(tmp_path / "many"), losses(tmp_path / "one"), atol=1e-5)
    assert evaluate(tmp_path / "many")["step"] == 8


def test_a_signal_to_one_process_ends_all_and_all_is_saved(tmp_path):
    config = config_of("formal", tmp_path, MESH, train__steps=10**6, train__eval_every=10**6)
    config.train.checkpoint_every = 10**6
    with Processes(config, tmp_path) as processes:
        last = time.monotonic() + SECONDS
        while not (tmp_path / "many/metrics.jsonl").exists() or not losses(tmp_path / "many"):
            assert time.monotonic() < last and processes.all[0].poll() is None
            time.sleep(0.2)
        processes.all[1].send_signal(signal.SIGTERM)
        ended = processes.end()
    assert [code for code, _ in ended] == [143, 143], ended
    (step,) = [int(p.name) for p in (tmp_path / "many/checkpoints").iterdir() if p.name.isdigit()]
    assert step == read_metrics(tmp_path / "many")[-1]["step"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, 0, ""), "expected all three or none"),
        (("localhost:1", 2, 2, ""), r"--process_id is 2 .* expected one of 0\.\.1"),
        (("localhost:1", 2, 0, "auto"), "expected one of the two"),
    ],
)
def test_processes_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        hosts.join(*given)
