"""The fifteen tasks once more in plain Python, one string at a time, and what a valid string looks like."""

import itertools
import math
import re


def _expression(ids, names):
    return "".join(str(i) if i < 5 else names[i - 5] for i in ids)


def _value(text):
    return eval(re.sub(r"(\d)", r" \1", text)) % 5


def even_pairs(ids):
    return [sum(a != b for a, b in itertools.pairwise(ids)) % 2]


def parity_check(ids):
    return [ids.count(1) % 2]


def modular_arithmetic(ids):
    return [_value(_expression(ids, "+-*"))]


def cycle_navigation(ids):
    place = 0
    for step in ids:
        place = (place + {0: -1, 1: 0, 2: 1}[step]) % 5
    return [place]


def modular_arithmetic_brackets(ids):
    return [_value(_expression(ids, "+-*()"))]


def solve_equation(ids):
    if len(ids) < 3:
        return [0]
    left, right = _expression(ids, "+-()x=").split("=")
    solutions = [x for x in range(5) if _value(left.replace("x", str(x))) == int(right)]
    assert len(solutions) == 1
    return solutions


def stack_manipulation(ids):
    stack = []
    for symbol in ids:
        if symbol == 2:
            stack = stack[:-1]
        else:
            stack.append({0: 0, 1: 1, 3: 0, 4: 1}[symbol])
    return _pad([*reversed(stack), 2], len(ids) + 1)


def reverse_string(ids):
    return ids[::-1]


def duplicate_string(ids):
    return ids + ids


def missing_duplicate_string(ids):
    if len(ids) == 1:
        return [1]
    half = len(ids) // 2
    first, second = ids[:half], ids[half : 2 * half]
    return [b if a == 2 else a for a, b in zip(first, second, strict=True) if 2 in (a, b)]


def odds_first(ids):
    return ids[1::2] + ids[0::2]


def bucket_sort(ids):
    return sorted(ids)


def binary_addition(ids):
    if len(ids) < 3:
        return _pad([*_little_endian(_number(ids)), 2], len(ids) + 1)
    a, b = _operands(ids)
    return _pad([*_little_endian(a + b), 2], len(ids) + 1)


def binary_multiplication(ids):
    if len(ids) < 3:
        return [[2], [0, 2]][len(ids) - 1]
    a, b = _operands(ids)
    return _pad([*_little_endian(a * b), 2], len(ids))


def compute_sqrt(ids):
    root = math.isqrt(_number(ids[::-1]))
    return [int(bit) for bit in format(root, "b").zfill((len(ids) + 1) // 2)]


def _pad(symbols, length):
    return symbols + [0] * (length - len(symbols))


def _number(bits):
    return sum(bit << place for place, bit in enumerate(bits))


def _little_endian(value):
    return [int(bit) for bit in reversed(format(value, "b"))]


def _operands(ids):
    place = ids.index(2)
    return _number(ids[:place]), _number(ids[place + 1 :])


OUTPUT_LENGTHS = {
    "stack_manipulation": lambda n: n + 1,
    "reverse_string": lambda n: n,
    "duplicate_string": lambda n: 2 * n,
    "odds_first": lambda n: n,
    "binary_addition": lambda n: n + 1,
    "binary_multiplication": lambda n: n,
    "compute_sqrt": lambda n: math.ceil(n / 2),
    "bucket_sort": lambda n: n,
}


def output_length(name, n):
    return OUTPUT_LENGTHS.get(name, lambda n: 1)(n)


def mask(name, output):
    if name not in ("stack_manipulation", "binary_addition", "binary_multiplication"):
        return [1.0] * len(output)
    end = output.index(2)
    return [float(place <= end) for place in range(len(output))]


def _split_expression(text, operators):
    """Checks the grammar of expressions and returns the parts; raises AssertionError."""
    if len(text) == 1:
        assert text.isdigit()
    elif len(text) == 2:
        assert text[0] == "-" and text[1].isdigit()
    else:
        assert text[0] == "(" and text[-1] == ")"
        inside = text[1:-1]
        if len(text) <= 4:
            return _split_expression(inside, operators)
        left = operand_length(inside)
        assert inside[left] in operators
        _split_expression(inside[:left], operators)
        _split_expression(inside[left + 1 :], operators)
    return True


def operand_length(text):
    """The number of characters of the operand that `text` starts with."""
    if text[0] == "-":
        return 2
    depth = 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place + 1
    raise AssertionError(f"unbalanced: {text}")


def _valid_binary(ids):
    if len(ids) == 1:
        return ids == [0]
    if len(ids) == 2:
        return ids in ([0, 0], [1, 0], [0, 1])
    place = ids.index(2)
    return ids.count(2) == 1 and 1 in ids[:place] and 1 in ids[place + 1 :] and set(ids) <= {0, 1, 2}


def _valid_equation(ids):
    if len(ids) < 3:
        return not any(ids)
    text = _expression(ids, "+-()x=")
    return (
        text.count("x") == 1
        and re.fullmatch(r"[^=]*=[0-4]", text) is not None
        and _split_expression(text[:-2].replace("x", "0"), "+-")
    )


def _valid_missing(ids):
    half = len(ids) // 2
    if half == 0:
        return ids == [1]
    pairs = list(zip(ids[:half], ids[half : 2 * half], strict=True))
    return (
        ids[2 * half :] == [3] * (len(ids) % 2)
        and sum(2 in pair for pair in pairs) == 1
        and all(a == b for a, b in pairs if 2 not in (a, b))
        and set(ids[: 2 * half]) <= {0, 1, 2}
        and ids.count(2) == 1
    )


VALID = {
    "modular_arithmetic": lambda ids: re.fullmatch("[0-4]([567][0-4])*", "".join(map(str, ids))) is not None,
    "modular_arithmetic_brackets": lambda ids: _split_expression(_expression(ids, "+-*()"), "+-*"),
    "solve_equation": _valid_equation,
    "stack_manipulation": lambda ids: re.fullmatch("[01]+[234]*", "".join(map(str, ids))) is not None,
    "missing_duplicate_string": _valid_missing,
    "binary_addition": _valid_binary,
    "binary_multiplication": _valid_binary,
    "compute_sqrt": lambda ids: 1 in ids and set(ids) <= {0, 1},
}

FREE_SYMBOLS = {"cycle_navigation": 3, "bucket_sort": 5}


def valid(name, ids):
    """Whether `ids` is a string of the language."""
    if name in VALID:
        return VALID[name](ids)
    return set(ids) <= set(range(FREE_SYMBOLS.get(name, 2)))
