"""The layers and cells of both front ends."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax import linen
from qlstm_jax import nnx as layers
from qlstm_jax.cells import CELLS
from qlstm_jax.describe import cell_class_name, config_name
from tests.arguments import values as v
from tests.arguments.cells import SMALL, batch, drawn_options, masks, no_masks, no_options, others, pick
from tests.arguments.outcomes import Call

NO_RNGS = (*v.NO_RNGS, None, nnx.Rngs(dropout=0))


def options(functions):
    """Options with which a cell is small."""
    return SMALL.get(config_name(functions), {})


@functools.cache
def layer(name, num_layers=1, bidirectional=False):
    """An NNX layer."""
    shape = {"num_layers": num_layers, "bidirectional": bidirectional}
    return getattr(layers, name)(v.D, v.H, **shape, **options(CELLS[name]), rngs=nnx.Rngs(0))


@functools.cache
def cell(name):
    """An NNX cell."""
    return getattr(layers, cell_class_name(name))(v.D, v.H, **options(CELLS[name]), rngs=nnx.Rngs(0))


@functools.cache
def linen_layer(name, num_layers=1, bidirectional=False):
    """A Linen layer and its variables."""
    shape = {"num_layers": num_layers, "bidirectional": bidirectional}
    module = getattr(linen, name)(v.H, **shape, **options(CELLS[name]))
    return module, module.init(v.KEY, jnp.zeros((2, 2, v.D)))


@functools.cache
def linen_cell(name):
    """A Linen cell and its variables."""
    module = getattr(linen, cell_class_name(name))(v.H, **options(CELLS[name]))
    return module, module.init(v.KEY, module.initialize_carry(None, (2, v.D)), jnp.zeros((2, v.D)))


def _constructor(room, name, cls, sizes, functions, extra=None):
    """The constructor of an NNX class; `extra` are (meaningful, meaningless) values by name."""
    extra = extra or {}

    def draw(rng):
        a = {size: pick(rng, (2, 4)) for size in sizes} | {"rngs": nnx.Rngs(0), "param_dtype": "float32", "dtype": None}
        a["hidden_features"] = 4
        a |= {n: pick(rng, good) for n, (good, _) in extra.items() if rng.random() < 0.5}
        return a | drawn_options(rng, functions)

    def meaningless(_):
        wrong = dict.fromkeys(sizes, v.NO_SIZE) | {"rngs": NO_RNGS, "param_dtype": v.NO_DTYPE}
        wrong["dtype"] = [d for d in v.NO_DTYPE if d is not None]
        wrong |= dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init"), v.NO_INITIALIZER)
        wrong |= dict.fromkeys(("kernel_metadata", "bias_metadata"), (None, "sharding", 3, [1], v.OBJECT))
        return wrong | {n: bad for n, (_, bad) in extra.items()} | no_options(functions) | {"no_such_option": (1, None)}

    return Call(f"{room}.{name}", cls, draw, meaningless)


LAYER = {
    "num_layers": ((1, 2), v.NO_SIZE),
    "bidirectional": ((True, False), (*v.NO_FLAG, None)),
    "variational": ((True, False), (*v.NO_FLAG, None)),
    "dropout": ((0.0, 0), v.NO_RATE),
}
OFFSET = {"max_offset": ((0, 2), v.NO_COUNT)}
LENGTH = {"max_length": ((1, 9), (*v.NO_SIZE, 2**31))}


def constructors():
    """Of the NNX classes."""
    for name, functions in CELLS.items():
        sizes = ("in_features", "hidden_features")
        more = {"PRLSTM": (OFFSET, LENGTH)}.get(name, ({}, {}))
        yield _constructor("nnx", name, getattr(layers, name), sizes, functions, LAYER | more[0])
        yield _constructor(
            "nnx", cell_class_name(name), getattr(layers, cell_class_name(name)), sizes, functions, more[1]
        )


def _linen_use(name, base, use, extra):
    """A Linen module made with drawn fields and used, as its fields are checked then."""
    functions = CELLS[name]

    def make(**fields):
        return use(getattr(linen, base)(**fields))

    def draw(rng):
        a = {"features": 4, "dtype": None, "param_dtype": "float32"} | drawn_options(rng, functions)
        return a | {n: pick(rng, good) for n, (good, _) in extra.items() if rng.random() < 0.5}

    def meaningless(_):
        wrong = {"features": v.NO_SIZE, "param_dtype": v.NO_DTYPE, "dtype": [d for d in v.NO_DTYPE if d is not None]}
        wrong |= dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init"), v.NO_INITIALIZER)
        return wrong | {n: bad for n, (_, bad) in extra.items()} | no_options(functions)

    return Call(f"linen.{base}", make, draw, meaningless, traced=True)


def linen_modules():
    """Made and used."""
    for name in CELLS:
        more = {"PRLSTM": (OFFSET, LENGTH)}.get(name, ({}, {}))
        yield _linen_use(name, name, lambda m: m.init(v.KEY, jnp.zeros((1, 1, v.D))), LAYER | more[0])

        def use(m):
            return m.init(v.KEY, m.initialize_carry(None, (1, v.D)), jnp.zeros((1, v.D)))

        yield _linen_use(name, cell_class_name(name), use, more[1])


FLAGS = ("return_carry", "time_major", "reverse", "keep_order")


def _call(room, name, function, shapes, *, last, carry):
    """A call of a layer (module, inputs, ...), or its `last`; `carry` makes one for (module, batch)."""

    def draw(rng):
        module, (b, t) = pick(rng, shapes)(), batch(rng)
        a = {"module": module, "inputs": v.numbers(rng, b, t, v.D)} | masks(rng, b, t)
        if last:
            return a
        flags = [flag for flag in FLAGS if rng.random() < 0.3]
        one_way = not _bidirectional(module)
        a |= {flag: True for flag in flags if flag != "return_carry" or one_way}
        if "time_major" in flags:
            a["inputs"] = jnp.swapaxes(a["inputs"], 0, 1)
            a |= {"resets": jnp.swapaxes(a["resets"], 0, 1)} if "resets" in a else {}
        if one_way and rng.random() < 0.3:
            a["initial_carry"] = carry(module, b)
        return a

    def meaningless(a):
        b, t = a["inputs"].shape[:2][:: -1 if a.get("time_major") else 1]
        wrong = {"inputs": v.no_numbers(a["inputs"])} | no_masks(b, t)
        if a.get("time_major"):
            wrong["resets"] = v.no_mask((t, b))
        # Any axes before time are a batch: one more is another batch, which the lengths or the carry may not fit.
        wrong["inputs"] = [x for x in wrong["inputs"] if getattr(x, "ndim", 0) != 4]
        if last:
            return wrong
        wrong |= dict.fromkeys(FLAGS, v.NO_FLAG)
        if not _bidirectional(a["module"]):
            made = carry(a["module"], b)
            bad = v.no_carry(made, *others(name, b))
            wrong["initial_carry"] = [c for c in bad if not _is_field(c, made)]
        return wrong

    return Call(f"{room}.{name}.{'last' if last else 'call'}", function, draw, meaningless, traced=True)


def _is_field(carry, made):
    """Whether it is what Flax has as a carry, the one array that a named tuple of ours holds."""
    return isinstance(carry, jax.Array) and len(made) == 1 and carry.shape == jax.tree.leaves(made)[0].shape


def _bidirectional(module):
    return (module[0] if isinstance(module, tuple) else module).bidirectional


def _shapes(make, name):
    return [functools.partial(make, name), functools.partial(make, name, 2), functools.partial(make, name, 1, True)]


def _apply(module, inputs, **arguments):
    return module[0].apply(module[1], inputs, **arguments)


def _apply_last(module, inputs, **arguments):
    return module[0].apply(module[1], inputs, method="last", **arguments)


def _step(room, name, function, make, carry):
    def draw(rng):
        module, b = make(name), pick(rng, (0, 1, 2))
        return {"module": module, "carry": carry(module, b), "inputs": v.numbers(rng, b, v.D)}

    def meaningless(a):
        b = a["inputs"].shape[0]
        wrong = [x for x in v.no_numbers(a["inputs"]) if getattr(x, "ndim", 0) != 3]
        return {"inputs": wrong, "carry": [None, *v.no_carry(a["carry"], *others(name, b))]}

    return Call(f"{room}.{cell_class_name(name)}.call", function, draw, meaningless, traced=True)


def _carry(name, make, argument, good, bad):
    """`initialize_carry` of an NNX layer or cell."""

    def function(module, **arguments):
        return module.initialize_carry(**arguments)

    def draw(rng):
        return {"module": make(), argument: pick(rng, good), "carry_init": None, "rngs": pick(rng, (None, v.KEY))}

    def meaningless(_):
        return {argument: bad, "carry_init": v.NO_INITIALIZER, "rngs": v.NO_RNGS}

    return Call(f"nnx.{name}.initialize_carry", function, draw, meaningless)


NO_SHAPE = (None, 3, "23", (), (2.5, v.D), (-1, v.D), ("2", v.D), [None, v.D], v.OBJECT, v.D)


def _by_token(name, last):
    def draw(rng):
        module, (b, t) = pick(rng, _shapes(layer, name))(), batch(rng)
        lengths = masks(rng, b, t)
        a = {"module": module, "symbols": v.numbers(rng, v.V, v.D), "ids": v.integers(rng, 0, v.V - 1, b, t)}
        return a | lengths

    def meaningless(a):
        wrong = {"symbols": v.no_numbers(a["symbols"]), "ids": v.no_ids(a["ids"], v.V, a.get("seq_lengths"))}
        return wrong | no_masks(*a["ids"].shape)

    method = "last_from_tokens" if last else "from_tokens"

    def function(module, symbols, ids, **arguments):
        return getattr(module, method)(symbols, ids, **arguments)

    return Call(f"nnx.{name}.{method}", function, draw, meaningless, traced=True)


def _run(module, inputs, **arguments):
    return module(inputs, **arguments)


def _last(module, inputs, **arguments):
    return module.last(inputs, **arguments)


def calls():
    """All functions of these rooms."""
    yield from constructors()
    yield from linen_modules()
    for name in CELLS:
        shapes, linen_shapes = _shapes(layer, name), _shapes(linen_layer, name)
        for last in (False, True):
            start = {"last": last, "carry": lambda m, b: m.initialize_carry(b)}
            yield _call("nnx", name, _last if last else _run, shapes, **start)
            start["carry"] = lambda m, b: m[0].initialize_carry(b)
            yield _call("linen", name, _apply_last if last else _apply, linen_shapes, **start)
            yield _by_token(name, last=last)
        yield _step("nnx", name, lambda module, **a: module(**a), cell, lambda m, b: m.initialize_carry((b, v.D)))
        start = lambda m, b: m[0].initialize_carry(None, (b, v.D))  # noqa: E731
        yield _step("linen", name, lambda module, **a: module[0].apply(module[1], **a), linen_cell, start)
        yield _carry(name, shapes[0], "batch_size", (0, 1, 3), v.NO_COUNT)
        good = (0, v.D), (2, v.D), [3, v.D], (2, 2, v.D)
        cell_name, make = cell_class_name(name), functools.partial(cell, name)
        yield _carry(cell_name, make, "input_shape", good, (*NO_SHAPE, (2, v.D + 1)))
