"""Expressions in brackets, drawn and evaluated mod 5 with one stack for each row, one position at a time.

An expression E_L of L symbols is
    E_1 = d     E_2 = -d     E_3 = (d)     E_4 = (-d)     E_L = ( E_l op E_{L-3-l} ), l uniform in 1..L-4.
Symbols: 0-4 the digits, 5 +, 6 -, then * if there are three operators, then the opening and the closing
bracket.

A stack is a (depth, B) array with its top in row 0; it moves by a whole row on a push or a pop, which costs a
select over the array but neither gather nor scatter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from qlstm_jax.data.formal import draws

MODULUS = 5
PLUS, MINUS, TIMES = 5, 6, 7


def brackets(num_operators: int) -> tuple[int, int]:
    """Returns the symbols of the opening and the closing bracket, (7, 8) with two operators, (8, 9) with three."""
    return 5 + num_operators, 6 + num_operators


def push(stack: Int[Array, "depth batch"], value: Int[Array, " batch"]) -> Int[Array, "depth batch"]:
    """(depth, B) stack with (B,) `value` on top; the lowest entry falls out."""
    return jnp.concatenate([value.astype(stack.dtype)[None, :], stack[:-1]])


def pop(stack: Int[Array, "depth batch"]) -> Int[Array, "depth batch"]:
    """(depth, B) stack without its top."""
    return jnp.concatenate([stack[1:], stack[-1:]])


class _Drawn(NamedTuple):
    """The state of `draw`."""

    need: Int[Array, " batch"]  # symbols still to write of the current expression
    stack: Int[Array, "depth batch"]  # what follows it


class _Evaluated(NamedTuple):
    """The state of `evaluate`."""

    value: Int[Array, " batch"]  # of the expression read last
    pending: Int[Array, " batch"]  # the map that awaits the next operand
    stack: Int[Array, "depth batch"]  # the maps of the brackets around it
    operand: Bool[Array, " batch"]  # whether the symbol before ended an operand


def draw(words: UInt[Array, "batch n"], lengths: Int[Array, " batch"], num_operators: int) -> Int[Array, "batch n"]:
    """Draws random expressions, all digits, operators and splits uniform.

    The state is the number of symbols still to write of the current expression (0 when it is complete) and a
    stack of what follows: r > 0 stands for "an operator, an expression of r symbols, a closing bracket", 0
    for a closing bracket alone. Each state writes exactly one symbol; digit, operator and split never need
    the same random word.

    Args:
        words: (B, N) uint32, uniform.
        lengths: (B,) int32, the number of symbols of each row; a row of length 0 or less writes nothing of
            use.
        num_operators: 2 for + and -, 3 for + - and *.

    Returns:
        (B, N) int32; positions at or beyond a row's length are arbitrary.
    """
    batch, width = words.shape
    opening, closing = brackets(num_operators)

    def step(state: _Drawn, word: UInt[Array, " batch"]) -> tuple[_Drawn, Int[Array, " batch"]]:
        need, stack = state
        following = stack[0].astype(jnp.int32)
        left = 1 + draws.integers(word, jnp.maximum(need - 4, 1))
        writes_bracket, complete = need >= 3, need == 0

        digit, operator = draws.integers(word, MODULUS), PLUS + draws.integers(word, num_operators)
        after = jnp.where(following > 0, operator, closing)
        started = jnp.where(writes_bracket, opening, jnp.where(need == 2, MINUS, digit))
        symbol = jnp.where(complete, after, started)

        pushed = push(stack, jnp.where(need >= 5, need - 3 - left, 0))
        # After an operator its closing bracket stays; a written closing bracket goes.
        closed = jnp.concatenate([jnp.zeros_like(stack[:1]), stack[1:]])
        popped = jnp.where((following > 0)[None, :], closed, pop(stack))
        stack = jnp.where(writes_bracket[None, :], pushed, jnp.where(complete[None, :], popped, stack))

        inner = jnp.where(need >= 5, left, jnp.where(writes_bracket, need - 2, need - 1))
        return _Drawn(jnp.where(complete, following, inner), stack), symbol

    # Each level of nesting but the innermost takes at least four symbols.
    depth = width // 4 + 2
    state = _Drawn(
        jnp.maximum(lengths, 1),
        jnp.zeros((depth, batch), jnp.int8 if width < 2**7 else jnp.int16 if width < 2**15 else jnp.int32),
    )
    return jax.lax.scan(step, state, words.T)[1].T


def evaluate(ids: Int[Array, "batch n"], lengths: Int[Array, " batch"], num_operators: int) -> Int[Array, " batch"]:
    """Evaluates, mod 5, each row's expression: one binary operator a bracket, minus also as a sign.

    The state is the value of the expression read last, and the map v -> a * v + b (mod 5) that awaits the
    next operand of the current bracket; the stack holds the maps of the brackets around it, as 5 a + b. A
    digit or a closing bracket finishes an operand; an operator turns the value into the next map.

    Args:
        ids: (B, N) int32.
        lengths: (B,) int32, the number of symbols of each row.
        num_operators: 2 for + and -, 3 for + - and *.

    Returns:
        (B,) int32 in 0..4.
    """
    batch, width = ids.shape
    opening, closing = brackets(num_operators)
    identity = MODULUS  # a = 1, b = 0

    def step(state: _Evaluated, inputs: tuple[Int[Array, " batch"], Bool[Array, " batch"]]) -> tuple[_Evaluated, None]:
        value, pending, stack, operand = state
        symbol, valid = inputs
        opens, closes = valid & (symbol == opening), valid & (symbol == closing)
        digit = valid & (symbol < MODULUS)

        around = jnp.where(closes, stack[0].astype(jnp.int32), pending)
        operated = (around // MODULUS * jnp.where(closes, value, symbol) + around % MODULUS) % MODULUS
        new_value = jnp.where(digit | closes, operated, value)

        a, b = pending // MODULUS, pending % MODULUS
        sign = -a % MODULUS * MODULUS + b
        binary = jnp.where(symbol == MINUS, 4 * MODULUS + value, MODULUS + value)
        if num_operators == 3:
            binary = jnp.where(symbol == TIMES, value * MODULUS, binary)
        awaiting = jnp.where(opens, identity, jnp.where(operand, binary, sign))
        written = opens | (valid & ~digit & ~closes)

        stack = jnp.where(opens[None, :], push(stack, pending), jnp.where(closes[None, :], pop(stack), stack))
        # Whether the symbol before this one ended an operand tells a binary minus from a sign.
        return _Evaluated(new_value, jnp.where(written, awaiting, pending), stack, digit | closes), None

    zeros = jnp.zeros(batch, jnp.int32)
    stack = jnp.zeros((width // 2 + 1, batch), jnp.int8)
    valid = jnp.arange(width, dtype=jnp.int32)[:, None] < lengths[None, :]
    state = _Evaluated(zeros, zeros + identity, stack, zeros != 0)
    return jax.lax.scan(step, state, (ids.T, valid))[0].value
