import os
import pathlib

import pytest

# Read once, when jax starts: sharded tests need several devices, and a CPU has one unless told otherwise.
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# The tests compile hundreds of small programs and run each a few times: most of their time would be LLVM's.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def goldens():
    """The directory of vectors made by running the official codes; they are not part of the repository."""
    directory = pathlib.Path(__file__).parents[1].parent / "shared" / "goldens"
    if not directory.is_dir():
        pytest.skip(f"no reference vectors at {directory}")
    return directory
