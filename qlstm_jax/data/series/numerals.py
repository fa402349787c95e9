"""How numbers are written: decimal points or commas, and what stands between thousands."""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

MISSING = frozenset(("", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "null", "none", "-", "--", "?"))
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_GROUPED = re.compile(rf"[+-]?(\d{{1,3}})([., '])\d{{3}}(\2\d{{3}})*(?:(?!\2)([.,])\d*)?{_EXPONENT}", re.ASCII)
_PLAIN = re.compile(rf"[+-]?(?=[.,]?\d)\d*(?:([.,])\d*)?{_EXPONENT}", re.ASCII)
# Blanks that do not break a line, the minus sign and the apostrophe of print.
_PRINTED = str.maketrans({"\xa0": " ", "\u2009": " ", "\u202f": " ", "\u2212": "-", "\u2019": "'"})
_SHAPE = _PRINTED | str.maketrans(dict.fromkeys("23456789", "1"))


class Style(NamedTuple):
    """The marks of one number: "1.234,5" has thousands "." and decimal ","; "1,234" may be 1.234 or 1234."""

    decimal: str = ""
    thousands: str = ""
    doubtful: str = ""  # "." or ",", where it may be either


def style(cell: str) -> Style | None:
    """Returns the marks of the number in a cell, None where there is no number."""
    return _style(cell.strip().translate(_SHAPE))


@functools.lru_cache(maxsize=10_000)
def _style(cell: str) -> Style | None:
    """Returns `style` of numbers of the same digits and marks: but for zeros, all digits are one."""
    grouped = _GROUPED.fullmatch(cell)
    if grouped:
        first, mark, more, decimal = grouped.groups()
        if mark in " '" or more or decimal:
            return Style(decimal or "", mark)
        return Style(mark) if first == "0" or "e" in cell.lower() else Style(doubtful=mark)
    plain = _PLAIN.fullmatch(cell)
    return Style(plain[1] or "") if plain else None


def is_missing(cell: str) -> bool:
    """Returns whether a cell says that its value is missing."""
    return cell.strip().lower() in MISSING


@dataclasses.dataclass(frozen=True)
class Numerals:
    """One way to write numbers.

    Attributes:
        decimal: "." or ",".
        thousands: what stands between groups of three digits; "" for nothing.
    """

    decimal: str = "."
    thousands: str = ""

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        groups = rf"\d{{1,3}}(?:{re.escape(self.thousands)}\d{{3}})+|" if self.thousands else ""
        return re.compile(rf"[+-]?(?:{groups}\d*)(?:{re.escape(self.decimal)}\d*)?{_EXPONENT}", re.ASCII)

    def number(self, cell: str) -> float | None:
        """Returns the cell as a finite number, or None."""
        if "_" in cell:  # 1_000 is Python's, not a file's
            return None
        if self.decimal == ".":
            try:
                number = float(cell)
                return number if math.isfinite(number) else None
            except ValueError:
                pass
        cell = cell.strip().translate(_PRINTED)
        if not self._pattern.fullmatch(cell):
            return None
        plain = cell.replace(self.thousands, "") if self.thousands else cell
        try:
            number = float(plain.replace(self.decimal, "."))
        except ValueError:  # a sign or a mark alone
            return None
        return number if math.isfinite(number) else None

    def __str__(self) -> str:
        between = {"": "", " ": ", blanks between thousands"}.get(
            self.thousands, f", {self.thousands!r} between thousands"
        )
        return f"{self.decimal!r} before decimals{between}"
