import ctypes
import gc
import importlib.metadata
import inspect
import os
import pathlib
import sys

import pytest
from packaging.version import Version

# Read once, when jax starts. Sharded tests need several devices, and a CPU has one unless told otherwise. A program is
# compiled as one piece: split for several threads, as usual, a small one takes a third longer. What jaxlib before 0.11
# makes of a fusion by default takes three times as long to compile as with its older emitters.
_FLAGS = {"--xla_force_host_platform_device_count": "8", "--xla_cpu_parallel_codegen_split_count": "1"}
if Version(importlib.metadata.version("jaxlib")) < Version("0.11"):
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
for _flag, _value in _FLAGS.items():
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}={_value}".strip()

import jax  # noqa: E402
import jaxtyping  # noqa: E402

from tests import typechecker  # noqa: E402, F401  (by name in --jaxtyping-packages)

jax.config.update("jax_numpy_rank_promotion", "raise")
# The tests compile hundreds of small programs and run each a few times: most of their time would be LLVM's.
jax.config.update("jax_disable_most_optimizations", True)
# Tracing makes many small objects and few circles of them.
gc.set_threshold(100_000, 50, 100)
MOST_BYTES = 1_500_000_000  # of a worker's memory, beyond which it forgets compiled programs after a test


@pytest.fixture(autouse=True)
def _own_checks_first(request):
    """Tests of errors pass wrong shapes on purpose: with --jaxtyping-packages, jaxtyping would raise another one."""
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", disabled or "pytest.raises(" in inspect.getsource(request.function))
    yield
    jaxtyping.config.update("jaxtyping_disable", disabled)


@pytest.fixture(scope="session")
def goldens():
    """The directory of vectors made by running the official codes."""
    return pathlib.Path(__file__).parent / "goldens"


def _forget_compiled_programs():
    """Gives the memory of compiled programs back to the system, where the C library can: freed, it would be kept."""
    jax.clear_caches()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # glibc's; others return memory by themselves


@pytest.fixture(autouse=True, scope="module")
def _forget_after_a_module():
    """Programs compiled for a module are no use to the next, and take gigabytes together."""
    yield
    _forget_compiled_programs()


@pytest.fixture(autouse=True)
def _forget_when_they_are_many():
    """Modules that compile hundreds of programs give them back on the way."""
    yield
    if sys.platform != "linux":
        return
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > MOST_BYTES:
        _forget_compiled_programs()
