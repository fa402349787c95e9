"""The options of a cell, read from its `init`."""

import inspect


def cell_options(functions) -> dict:
    """The options of the cell `functions` with their defaults: the keywords of its `init` but for the dtypes."""
    keywords = inspect.signature(functions.init).parameters.values()
    keywords = [p for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in ("dtype", "param_dtype")]
    return {p.name: p.default for p in keywords}


def check_options(owner: str, functions, options: dict):
    """Raises TypeError, in the name of `owner`, for options that the cell `functions` does not have."""
    known = cell_options(functions)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"{owner} has no option {', '.join(unknown)}; expected {', '.join(known) or 'none'}")
