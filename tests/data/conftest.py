import pathlib

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def goldens():
    directory = pathlib.Path(__file__).parents[2].parent / "shared" / "goldens"
    if not directory.is_dir():
        pytest.skip(f"the reference vectors are not at {directory}")
    return directory
