import inspect
import os
import pathlib

import pytest

# Read once, when jax starts: sharded tests need several devices, and a CPU has one unless told otherwise.
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()

import jax  # noqa: E402
import jaxtyping  # noqa: E402

from tests import typechecker  # noqa: E402, F401  (by name in --jaxtyping-packages)

jax.config.update("jax_numpy_rank_promotion", "raise")
# The tests compile hundreds of small programs and run each a few times: most of their time would be LLVM's.
jax.config.update("jax_disable_most_optimizations", True)


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


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Programs compiled for a module are no use to the next, and take gigabytes together."""
    yield
    jax.clear_caches()
