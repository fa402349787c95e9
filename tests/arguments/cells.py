"""The pure cells."""

import functools
import inspect

import jax
import jax.numpy as jnp

from qlstm_jax.cells import CELLS, common, pr_lstm
from qlstm_jax.cells.pr_lstm import regularization, tokens
from tests.arguments import values as v
from tests.arguments.outcomes import Call

SMALL = {"slstm": {"num_heads": 2}, "mlstm": {"num_heads": 2, "chunk_size": 2}, "ql_lstm": {"block_size": 2}}
# Meaningful values beside the default.
MEANINGFUL = {
    "chrono": (0, 9),
    "implementation": ("auto", "scan"),
    "sharing": ("full", "gates", "none"),
    "block_size": (1, 3),
    "skip": (True, False),
    "remat": (True, False),
    "epsilon": (1.0, 0.5),
    "forget_gate": ("sigmoid", "exponential"),
    "num_heads": (1, 2),
    "key_size": (None, 2),
    "refinements": (0, 1, 2),
    "block_position": (0, 0.5, 1),
    "cell": ("lstm",),
    "norm": ("none", "rms"),
    "value_init": ("paper", "identity"),
}
NO_OPTION = {
    "chrono": (*v.NO_COUNT, 1, 2),
    "refinements": v.NO_COUNT,
    "key_size": tuple(x for x in v.NO_SIZE if x is not None),
}
NO_OPTION |= {
    "block_position": (*v.NO_NUMBER, -0.5, 1.5),
    "epsilon": (*v.NO_NUMBER, 0, -1),
    "num_heads": (*v.NO_SIZE, 3),
}
BY_TYPE = {bool: v.NO_FLAG, int: v.NO_SIZE, float: v.NO_NUMBER, str: v.NO_CHOICE}


def drawn_options(rng, cell):
    """Options of a cell that fit each other."""
    names = common.cell_options(cell)
    options = {n: pick(rng, MEANINGFUL[n]) for n in names if n in MEANINGFUL and rng.random() < 0.4}
    return options | {n: 2 for n in ("chunk_size",) if n in names} | ({"num_heads": 2} if "num_heads" in names else {})


def no_options(cell):
    """For each option of a cell what is meaningless."""
    known = common.cell_options(cell)
    return {n: NO_OPTION[n] if n in NO_OPTION else BY_TYPE[type(p.default)] for n, p in known.items()}


def pick(rng, choices):
    """One of these."""
    return choices[int(rng.integers(len(choices)))]


@functools.cache
def params(name, variant):
    """The weights of a cell with some options."""
    cell = CELLS[name]
    options = {**SMALL.get(cell.__name__.rpartition(".")[2], {}), **dict(variant)}
    return cell.init(v.KEY, v.D, v.H, **options)


VARIANTS = {
    "QLSTM": ((), (("skip", False),), (("sharing", "none"),), (("remat", True),), (("num_heads", 2),)),
    "PRLSTM": ((), (("refinements", 0),), (("cell", "rnn"),), (("norm", "rms"),)),
}


def drawn_params(rng, name):
    """Weights of a cell with some of its options."""
    half = (("dtype", "bfloat16"),) if rng.random() < 0.2 else ()
    return params(name, pick(rng, VARIANTS.get(name, ((),))) + half)


def others(name, batch):
    """Carries of other cells."""
    return [CELLS[n].initial_carry(params(n, ()), batch) for n in CELLS if CELLS[n] is not CELLS[name]]


def batch(rng):
    """B and T."""
    return pick(rng, (0, 1, 2)), pick(rng, (0, 1, 2, 5))


def masks(rng, b, t):
    """Lengths and resets, or none."""
    result = {}
    if rng.random() < 0.6:
        result["seq_lengths"] = v.integers(rng, 0, t, b)
    if rng.random() < 0.3:
        result["resets"] = rng.random((b, t)) < 0.3
    return result


def no_masks(b, t):
    """What is no lengths or resets."""
    return {"seq_lengths": v.no_lengths(b, t), "resets": v.no_mask((b, t))}


def _init(name, cell):
    def draw(rng):
        return {
            "key": v.KEY,
            "input_size": pick(rng, (1, 3)),
            "hidden_size": 4,
            "dtype": "float32",
            "param_dtype": "float32",
        } | (drawn_options(rng, cell))

    def meaningless(_):
        wrong = {
            "key": v.NO_KEY,
            "input_size": v.NO_SIZE,
            "hidden_size": v.NO_SIZE,
            "dtype": v.NO_DTYPE,
            "param_dtype": v.NO_DTYPE,
        }
        return wrong | no_options(cell)

    return Call(f"cells.{name}.init", cell.init, draw, meaningless)


def _initial_carry(name, cell):
    def draw(rng):
        options = {"max_length": pick(rng, (1, 7, 100))} if name == "PRLSTM" else {}
        return {"params": drawn_params(rng, name), "batch_size": pick(rng, (0, 1, 3))} | options

    def meaningless(_):
        options = {"max_length": (*v.NO_SIZE, 2**31)} if name == "PRLSTM" else {}
        return {"params": no_params(name), "batch_size": v.NO_COUNT} | options

    return Call(f"cells.{name}.initial_carry", cell.initial_carry, draw, meaningless, traced=True)


def no_params(name):
    """What is no weights of this cell."""
    return [params(n, ()) for n in CELLS if n != name] + [None, {}, "params", v.OBJECT, v.KEY]


def _step(name, cell):
    def draw(rng):
        p, (b, _) = drawn_params(rng, name), batch(rng)
        reset = {"reset": rng.random(b) < 0.5} if rng.random() < 0.5 else {}
        return {"params": p, "carry": cell.initial_carry(p, b), "x": v.numbers(rng, b, v.D)} | reset

    def meaningless(a):
        b = a["x"].shape[0]
        carries = [None, *v.no_carry(a["carry"], *others(name, b))]
        return {"params": no_params(name), "carry": carries, "x": v.no_numbers(a["x"]), "reset": v.no_mask((b,))}

    return Call(f"cells.{name}.step", cell.step, draw, meaningless, traced=True)


def sequence(name, cell):
    """Draws of what reads a sequence, and what is meaningless."""

    def draw(rng):
        p, (b, t) = drawn_params(rng, name), batch(rng)
        return {"params": p, "xs": v.numbers(rng, b, t, v.D)} | masks(rng, b, t)

    def meaningless(a):
        b, t, _ = a["xs"].shape
        return {"params": no_params(name), "xs": v.no_numbers(a["xs"])} | no_masks(b, t)

    return draw, meaningless


def _unroll(name, cell, function, label):
    draw_sequence, no_sequence = sequence(name, cell)
    plain = "plain" in inspect.signature(cell.unroll).parameters

    def draw(rng):
        a = draw_sequence(rng)
        if rng.random() < 0.4:
            a["carry"] = cell.initial_carry(a["params"], a["xs"].shape[0])
        return a | ({"plain": bool(rng.random() < 0.5)} if plain else {})

    def meaningless(a):
        b = a["xs"].shape[0]
        wrong = no_sequence(a) | {"carry": v.no_carry(cell.initial_carry(a["params"], b), *others(name, b))}
        return wrong | ({"plain": v.NO_FLAG} if plain else {})

    return Call(f"cells.{name}.{label}", function, draw, meaningless, traced=True)


def gradient(function):
    """The gradient of all that a function over sequences gives, with respect to its weights and inputs."""

    def of(params, xs, **options):
        if not hasattr(xs, "dtype") or not jnp.issubdtype(xs.dtype, jnp.floating):
            return function(params, xs, **options)  # what cannot be differentiated

        def total(params, xs):
            leaves = jax.tree.leaves(function(params, xs, **options))
            return sum(jnp.sum(a.astype(jnp.float32)) for a in leaves if jnp.issubdtype(a.dtype, jnp.floating))

        if not dataclass_of_arrays(params):
            return function(params, xs, **options)
        return jax.grad(total, argnums=(0, 1))(params, xs)

    return of


def dataclass_of_arrays(params):
    """Whether these are weights of some cell."""
    return any(isinstance(params, cell.Params) for cell in CELLS.values())


def _by_token(name, function):
    def draw(rng):
        b, t = batch(rng)
        a = {
            "params": drawn_params(rng, "PRLSTM"),
            "symbols": v.numbers(rng, v.V, v.D),
            "ids": v.integers(rng, 0, v.V - 1, b, t),
        }
        lengths = masks(rng, b, t)
        return a | ({"seq_lengths": lengths["seq_lengths"]} if "seq_lengths" in lengths else {})

    def meaningless(a):
        wrong = {"params": no_params("PRLSTM"), "symbols": v.no_numbers(a["symbols"])}
        wrong["ids"] = v.no_ids(a["ids"], v.V, a.get("seq_lengths"))
        return wrong | {"seq_lengths": v.no_lengths(*a["ids"].shape)}

    return Call(f"cells.PRLSTM.tokens.{name}", function, draw, meaningless, traced=True)


def _associativity():
    draw_sequence, no_sequence = sequence("PRLSTM", pr_lstm)

    def draw(rng):
        a = draw_sequence(rng) | {"key": v.KEY}
        a.pop("resets", None)
        return a

    def meaningless(a):
        wrong = no_sequence(a) | {"key": v.NO_KEY}
        wrong.pop("resets")
        return wrong

    return Call("cells.PRLSTM.associativity", regularization.associativity, draw, meaningless, traced=True)


def calls():
    """All functions of this room."""
    for name, cell in CELLS.items():
        yield _init(name, cell)
        yield _initial_carry(name, cell)
        yield _step(name, cell)
        yield _unroll(name, cell, cell.unroll, "unroll")
        yield _unroll(name, cell, gradient(cell.unroll), "gradient of unroll")
        yield Call(f"cells.{name}.last", cell.last, *sequence(name, cell), traced=True)
    yield Call("cells.PRLSTM.reduce", pr_lstm.reduce, *sequence("PRLSTM", pr_lstm), traced=True)
    yield _by_token("reduce", tokens.reduce)
    yield _by_token("unroll", tokens.unroll)
    yield _associativity()
