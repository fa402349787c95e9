import os
import pathlib
import subprocess
import sys

import numpy as np

from tests import layer_programs


def test_optimised_programs_read_no_memory_that_they_have_not_written(tmp_path):
    """The tests compile with most optimisations off. Here all are on, and new memory is full of large numbers."""
    environment = {**os.environ, "MALLOC_PERTURB_": "1"}  # glibc fills what it allocates; 0xFE bytes are −1.7e38
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, "-m", "tests.layer_programs", str(tmp_path / "results.npz")]
    with subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[1], env=environment) as process:
        expected = layer_programs.results()
        assert process.wait(timeout=600) == 0
    with np.load(tmp_path / "results.npz") as optimised:
        assert set(optimised) == set(expected)
        for name in expected:
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(optimised[name] / scale, expected[name] / scale, atol=2e-4, err_msg=name)
