"""Meaningless values for each kind of argument, and small arrays."""

import jax
import jax.numpy as jnp
import numpy as np

D, H, V = 3, 4, 6
KEY = jax.random.key(0)
OBJECT = object()
NO_SIZE = (0, -1, 2.5, "4", None, True, [3], float("nan"), np.array([2, 3]), 1j, OBJECT)
NO_COUNT = (-1, 2.5, "4", None, True, [3], float("nan"), np.array([2, 3]), 1j, OBJECT)
NO_RATE = (-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.1", None, True, [0.1], 1j, np.array([0.1, 0.2]), OBJECT)
NO_NUMBER = (float("nan"), float("inf"), "1", None, [1.0], 1j, True, np.array([1.0, 2.0]), OBJECT)
NO_FLAG = ("yes", 2, 0, 1.0, "", [True], np.array([True, False]), OBJECT)
NO_CHOICE = ("nothing", None, 3, ["last"], True, b"last", np.array(["last", "max"]), OBJECT)
NO_KEY = (0, None, "key", 1.5, [0, 1], jax.random.split(KEY), np.zeros(3), jnp.zeros(2, jnp.int32), OBJECT)
NO_RNGS = (0, "rngs", 1.5, jax.random.split(KEY), np.zeros(3), [KEY], OBJECT)
NO_DTYPE = ("int32", "complex64", "bool", "floats", None, 3, ["float32"], "float8_e4m3fn", object, OBJECT)
NO_INITIALIZER = ("zeros", 0, [1], np.zeros(3), OBJECT)
NO_ARRAY = (None, "abc", b"abc", OBJECT, {"a": 1}, {1, 2}, np.array(["a", "b"]), np.array([OBJECT]), len, 1j)


def numbers(rng, *shape):
    """Real numbers of a shape; mostly float32, of jax or numpy."""
    a = rng.normal(size=shape).astype(rng.choice(["float32", "float32", "float32", "float16", "int32"]))
    return a if rng.random() < 0.3 else jnp.asarray(a)


def integers(rng, low, high, *shape):
    """Integers from low to high, of jax or numpy."""
    a = rng.integers(low, high + 1, shape).astype("int32")
    return a if rng.random() < 0.3 else jnp.asarray(a)


def no_numbers(good, *, lists=True):
    """What is no array of real numbers of the shape and width of `good`."""
    a = np.asarray(good, np.float32)
    wrong = [*NO_ARRAY, a.astype(complex), a.astype(bool), a.astype(object), a.astype(str), jnp.asarray(a, "complex64")]
    wrong += [a[None], a[..., None], jax.random.split(KEY, max(1, a.size)), np.zeros(()), 1.5]
    wrong += [np.concatenate([a, a[..., :1]], -1)] if a.shape[-1] else []
    return wrong + ([a.tolist()] if lists else [])


def no_ids(good, size, lengths=None):
    """What is no array of ids below `size` of the rank of `good`."""
    a = np.asarray(good)
    wrong = [
        *NO_ARRAY,
        a.astype("float32"),
        a.astype(bool),
        a.astype(object),
        a.astype(str),
        a[None],
        a.astype(complex),
        2.5,
    ]
    if a.size and (lengths is None or np.all(np.asarray(lengths) > 0)):
        for value in (-1, size, -size - 1, 2**31 - 1):
            bad = a.copy()
            bad.flat[0] = value
            wrong += [bad, jnp.asarray(bad)]
    return wrong


def no_lengths(batch, steps):
    """What is no array of lengths of `batch` rows of `steps` positions."""
    wrong = [
        np.full(batch + 1, 0),
        0,
        np.zeros((batch, 1), int),
        np.full(batch, 0.0),
        np.full(batch, False),
        *NO_ARRAY[1:],
    ]
    wrong += [jnp.zeros(batch + 1, jnp.int32), jnp.zeros(batch, jnp.float32), np.full(batch, "1"), np.full(batch, 1j)]
    if batch:
        wrong += [np.full(batch, steps + 1), np.full(batch, -1), jnp.full(batch, steps + 1, jnp.int32)]
        wrong += [jnp.full(batch, -1, jnp.int32), [steps + 1] * batch, [2**40] * batch]
    return wrong


def no_mask(shape):
    """What is no array of booleans of a shape."""
    return [
        np.zeros(shape, int),
        np.zeros(shape, "float32"),
        np.zeros((*shape, 1), bool),
        jnp.zeros(shape),
        *NO_ARRAY[1:],
    ]


def no_carry(carry, *others):
    """What is no carry like this one."""
    floats = [jax.tree.map(lambda a, d=d: a.astype(d), carry) for d in ("float16", "int32", "complex64", "bool")]
    floats = [c for c in floats if _dtypes(c) != _dtypes(carry)]
    grown = jax.tree.map(lambda a: jnp.concatenate([a, jnp.zeros((1, *a.shape[1:]), a.dtype)]), carry)
    flat = jax.tree.map(lambda a: a.reshape(-1), carry)
    texts = jax.tree.map(lambda a: "h", carry)
    none = jax.tree.map(lambda a: None, carry)
    wrong = [*floats, grown, flat, texts, none, *others, "carry", 3, [1], {}, OBJECT, (), (carry, carry, carry, carry)]
    return [*wrong, jnp.zeros((7, 7)), list(carry), {"h": jnp.zeros((2, H))}]


def _dtypes(tree):
    return [str(a.dtype) for a in jax.tree.leaves(tree)]
