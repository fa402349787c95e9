import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def quick_compiles():
    """These tests compile hundreds of tiny programs and run each a few times: most of their time is LLVM's."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
