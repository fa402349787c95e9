from tests.cells.conftest import quick_compiles  # noqa: F401
