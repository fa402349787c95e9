"""Checks that several sources of data share."""

from qlstm_jax.data.rows import DataError


def at_least(name: str, value: object, minimum: int) -> None:
    """Raises ValueError unless `value` is a Python int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} is {value!r}; expected a Python int of at least {minimum}")


def check_shares(validation: float, test: float, *, section: str = "") -> None:
    """Raises DataError unless a validation and a test part, each more than nothing, leave something to train on.

    `section` is put before both names in the message, "lm." for a config's keys.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"{section}validation is {validation} and {section}test {test}; give shares above 0 that together are "
            "below 1"
        )
