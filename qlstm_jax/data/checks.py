"""A check of what a user hands to a synthetic task."""


def at_least(name: str, value, least: int):
    """Raises ValueError unless `value` is a Python int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a Python int of at least {least}")
