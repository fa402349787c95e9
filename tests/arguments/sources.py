"""Data: what is drawn on the device, batches, packed rows, tokenizers and windows of tokens."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from qlstm_jax.data import adding, batching, copying, corpus, digits, mqar, packing, recall, splits, tokenizer, windows
from qlstm_jax.data.formal import TASKS
from qlstm_jax.data.rows import Examples, LoadReport
from tests.arguments import values as v
from tests.arguments.cells import pick
from tests.arguments.outcomes import Call

NO_INTEGERS = (
    *v.NO_ARRAY,
    np.array([0.5, 1.5]),
    np.array([-1, 2]),
    np.zeros((2, 2), int),
    [1.5],
    [[1], [1, 2]],
    3,
    [-1],
)
NO_TEXTS = (None, 3, "a text", b"a text", [1, 2], [None], [b"a"], ["\ud800"], v.OBJECT)
NO_TEXT = (None, 3, b"a", ["a"], "\ud800", v.OBJECT)
NO_SEED = v.NO_COUNT
NO_LIMIT = tuple(x for x in v.NO_SIZE if x is not None)


def fixed(name, function, good, **wrong):
    """A call with these meaningful arguments, and by name the meaningless ones."""
    return Call(f"data.{name}", function, lambda rng: good, lambda _: wrong)


def _sampler(name, sampler, shortest):
    def draw(rng):
        return {"key": v.KEY, "batch_size": pick(rng, (1, 2)), "length": pick(rng, (shortest, shortest + 3))}

    def meaningless(_):
        return {"key": v.NO_KEY, "batch_size": v.NO_SIZE, "length": (*v.NO_COUNT, shortest - 1)}

    return Call(f"data.{name}.sample", sampler.sample, draw, meaningless, traced=True)


def _sizes(name, cls, good, bad=None):
    """A class whose arguments are sizes."""
    return Call(f"data.{name}", cls, lambda rng: dict(good), lambda _: dict.fromkeys(good, v.NO_SIZE) | (bad or {}))


def samplers():
    """Problems drawn on the device."""
    yield _sampler("Adding", adding.Adding(), 2)
    yield _sampler("Copying", copying.Copying(2, 3), 0)
    yield _sampler("MQAR", mqar.MQAR(2, 4, 4), 6)
    yield _sampler("Recall", recall.Recall(2, 2), 0)
    yield _sizes("Copying", copying.Copying, {"num_symbols": 2, "alphabet": 3})
    yield _sizes("MQAR", mqar.MQAR, {"num_pairs": 2, "num_keys": 3, "num_values": 3})
    yield _sizes("Recall", recall.Recall, {"num_classes": 2, "num_noise": 2})
    no_speed = {"speed": (*v.NO_NUMBER, -1.0), "canvas": (*v.NO_SIZE, 8)}
    yield _sizes("Clips", digits.Clips, {"frames": 2, "canvas": 10, "speed": 1.0}, no_speed)
    for name, task in (("Pixels", digits.Pixels()), ("Clips", digits.Clips(frames=2, canvas=10))):
        yield _images(name, task)


def _images(name, task):
    def draw(rng):
        images, labels = rng.random((3, 8, 8)).astype("float32"), v.integers(rng, 0, 9, 3)
        return {"key": v.KEY, "batch_size": pick(rng, (1, 2)), "images": jnp.asarray(images), "labels": labels}

    def meaningless(a):
        bad = [x for x in v.no_numbers(a["images"], lists=False) if not isinstance(x, list)]
        labels = [*v.no_ids(a["labels"], 10), np.zeros(2, int), np.zeros((3, 1), int)]
        return {"key": v.NO_KEY, "batch_size": v.NO_SIZE, "images": bad, "labels": labels}

    return Call(f"data.{name}.sample", task.sample, draw, meaningless, traced=True)


@functools.cache
def formal_batch(name, batch, length):
    """Of a formal language."""
    return TASKS[name].sample(v.KEY, batch, length)


def _formal_sample(name, task):
    def draw(rng):
        a = {"key": v.KEY, "batch_size": pick(rng, (1, 2)), "length": pick(rng, (1, 4))}
        return a | ({"length": np.array(3), "max_length": 5} if rng.random() < 0.3 else {})

    def meaningless(a):
        lengths = [x for x in v.NO_SIZE if not isinstance(x, list | np.ndarray)]
        lengths += [np.array([1, 2, 3, 4]), np.array(1.5), np.array(9), "5"]
        sizes = [x for x in v.NO_SIZE if x is not None]
        return {"key": v.NO_KEY, "batch_size": v.NO_SIZE, "length": lengths, "max_length": sizes}

    return Call(f"data.{name}.sample", task.sample, draw, meaningless, traced=True)


def _formal_label(name, task):
    def draw(rng):
        made = formal_batch(name, pick(rng, (1, 2)), 5)
        return {"ids": made.ids, "lengths": made.lengths}

    def meaningless(a):
        return {
            "ids": v.no_ids(a["ids"], task.input_size, a["lengths"]),
            "lengths": [None, *_no_rows(a["lengths"], a["ids"].shape[1])],
        }

    return Call(f"data.{name}.label", task.label, draw, meaningless, traced=True)


def _no_rows(lengths, width):
    batch = lengths.shape[0]
    wrong = [x for x in v.no_lengths(batch, width) if not isinstance(x, list)]
    return [*wrong, jnp.zeros(batch, jnp.int32)]


def no_batches(made, task):
    """What is no batch of a task."""
    wrong = [None, 3, "batch", {}, v.OBJECT, made.ids]
    for name in ("ids", "targets", "lengths", "target_lengths", "mask"):
        array = getattr(made, name)
        wrong += [dataclasses.replace(made, **{name: x}) for x in (None, array[None], array[:0], "x")]
    for name in ("ids", "targets"):
        array = getattr(made, name)
        wrong += [dataclasses.replace(made, **{name: array + 99}), dataclasses.replace(made, **{name: array - 99})]
        wrong += [dataclasses.replace(made, **{name: array.astype(jnp.float32)})]
    return [
        *wrong,
        dataclasses.replace(made, lengths=made.lengths + 99),
        dataclasses.replace(made, lengths=made.lengths * 0),
    ]


def _formal_scores(name, task, method):
    """A method that reads a batch, and mostly what a model gave."""

    def draw(rng):
        made = formal_batch(name, pick(rng, (1, 2)), 5)
        if method in ("frame", "tape"):
            return {"batch": made}
        steps = made.targets.shape[1] + (made.ids.shape[1] if method == "outputs" else 0)
        ys = jnp.asarray(rng.normal(size=(made.ids.shape[0], steps, task.output_size)), jnp.float32)
        return {"ys" if method == "outputs" else "logits": ys, "batch": made}

    def meaningless(a):
        wrong = {"batch": no_batches(a["batch"], task)}
        if "logits" in a:
            wrong["logits"] = [*v.no_numbers(a["logits"], lists=False), a["logits"].astype(int)]
        if "ys" in a:  # outputs of any kind and width
            ys = a["ys"]
            wrong["ys"] = [*v.NO_ARRAY, ys[0], ys[None], ys[:, :1], jnp.concatenate([ys, ys]), 3]
        return wrong

    return Call(f"data.{name}.{method}", getattr(task, method), draw, meaningless, traced=True)


def formal():
    """The formal languages."""
    for name, task in TASKS.items():
        yield _formal_sample(name, task)
        yield _formal_label(name, task)
    for name in ("even_pairs", "binary_addition", "reverse_string"):
        for method in ("loss", "correct", "accuracy", "outputs", "frame", "tape"):
            yield _formal_scores(name, TASKS[name], method)


def encoded(rng, count=5):
    """Texts as arrays of ids."""
    return [rng.integers(0, 9, int(rng.integers(0, 6))) for _ in range(count)]


NO_ENCODED = (None, 3, "ids", [1, 2], [[0.5]], [None], [np.array([-1])], [np.zeros((1, 1), int)], v.OBJECT, ["a"])


def _batches(cls, name, good, bad):
    def draw(rng):
        return {"encoded": encoded(rng), "labels": rng.integers(0, 3, 5), "batch_size": 2, "seed": 0} | dict(good)

    def meaningless(_):
        labels = [x for x in NO_INTEGERS if not isinstance(x, list)]
        wrong = {"encoded": NO_ENCODED, "labels": labels, "batch_size": v.NO_SIZE, "seed": NO_SEED}
        return wrong | bad

    def function(**arguments):
        return cls(**arguments).batch(0)

    return Call(f"data.{name}", function, draw, meaningless)


def _stream():
    rng = np.random.default_rng(0)
    made = batching.Batches(encoded(rng), [0, 1, 0, 1, 0], batch_size=2, buckets=(3, 6), seed=0)
    numbers = [x for x in v.NO_COUNT if x is not None]

    def function(**arguments):
        return list(batching.stream(**arguments))

    def draw(rng):
        return {"batches": made, "start": pick(rng, (0, 2)), "stop": 4, "prefetch": pick(rng, (1, 2))}

    def meaningless(_):
        return {"batches": (None, 3, [1], v.OBJECT), "start": numbers, "stop": numbers, "prefetch": v.NO_SIZE}

    yield Call("data.stream", function, draw, meaningless)
    yield Call("data.Batches.batch", made.batch, lambda rng: {"position": 1}, lambda _: {"position": v.NO_COUNT})
    yield Call("data.Batches.plan", made.plan, lambda rng: {"epoch": 1}, lambda _: {"epoch": v.NO_COUNT})


def _packing():
    def draw(rng):
        return {"sequences": [rng.integers(0, 9, n) for n in rng.integers(1, 5, 4)], "row_length": 6}

    def meaningless(_):
        return {"sequences": (*NO_ENCODED, [np.zeros(0, int)], [np.zeros(9, int)]), "row_length": v.NO_SIZE}

    yield Call("data.pack", packing.pack, draw, meaningless)
    packed = packing.pack([np.arange(3), np.arange(4)], 5)
    outputs = np.zeros((*packed.ids.shape, 2))
    no_outputs = (*v.NO_ARRAY, outputs[:, :1], outputs[None], 3)
    good = {"outputs": outputs, "packed": packed}
    yield fixed("unpack", packing.unpack, good, outputs=no_outputs, packed=(None, 3, "packed", (1, 2), v.OBJECT))
    no_lengths = (*NO_INTEGERS, np.array([0]), np.array([9]))
    good = {"lengths": [1, 2, 3], "row_length": 5}
    yield fixed("plan_rows", packing.plan_rows, good, lengths=no_lengths, row_length=v.NO_SIZE, most=NO_LIMIT)


TEXTS = ["a fine film", "a dull film", "Fine!", "", "é ü"]


@functools.cache
def trained(kind):
    """A tokenizer."""
    return tokenizer.Tokenizer.train(TEXTS, kind=kind, vocab_size=300, min_frequency=1)


def _tokenizers():
    def draw(rng):
        return {
            "texts": TEXTS,
            "kind": pick(rng, ("word", "bpe")),
            "vocab_size": 300,
            "min_frequency": 1,
            "lowercase": True,
        }

    def meaningless(_):
        wrong = {"texts": NO_TEXTS, "kind": v.NO_CHOICE, "vocab_size": (*v.NO_SIZE, 2), "min_frequency": v.NO_SIZE}
        return wrong | {"lowercase": (*v.NO_FLAG, None)}

    yield Call("data.Tokenizer.train", tokenizer.Tokenizer.train, draw, meaningless)
    for kind in tokenizer.KINDS:
        made = trained(kind)
        yield fixed("Tokenizer.encode", made.encode, {"text": "a film"}, text=NO_TEXT, max_length=NO_LIMIT)
        yield fixed("Tokenizer.encode_batch", made.encode_batch, {"texts": TEXTS}, texts=NO_TEXTS, max_length=NO_LIMIT)
        no_ids = (*NO_INTEGERS[:-2], [-1], [made.vocab_size], [10**6], 1.5)
        yield fixed("Tokenizer.decode", made.decode, {"ids": [2, 0, 3]}, ids=no_ids)


def _corpora():
    good = {"corpus": corpus.Corpus("test", (b"some text to read " * 20,)), "validation": 0.1, "test": 0.1, "seed": 0}
    shares = (*v.NO_NUMBER, 0, -0.5, 1.5)
    no_corpus = (None, 3, "text", v.OBJECT)
    yield fixed("corpus.split", corpus.split, good, corpus=no_corpus, validation=shares, test=shares, seed=NO_SEED)
    contents = (None, 3, "text", b"text", ["text"], [None], v.OBJECT)
    good = {"contents": [b"ab", b"c"], "max_bytes": 2}
    yield fixed("corpus.cut", corpus.cut, good, contents=contents, max_bytes=v.NO_COUNT)
    good = {"contents": [b"ab"], "tokenizer": trained("byte"), "source": "test"}
    no_tokenizer = (None, "byte", 3, windows.Bytes, v.OBJECT)
    yield fixed("windows.encode", windows.encode, good, contents=(*contents, [b"\xff"]), tokenizer=no_tokenizer)
    good = {"nats": 1.0, "tokens": 3, "num_bytes": 5}
    no_nats = (None, "1", [1.0], 1j, True, v.OBJECT)
    yield fixed(
        "windows.bits_per_byte", windows.bits_per_byte, good, nats=no_nats, tokens=v.NO_COUNT, num_bytes=v.NO_SIZE
    )
    yield fixed("Bytes.encode", windows.Bytes().encode, {"text": "é"}, text=NO_TEXT)
    yield fixed("Bytes.decode", windows.Bytes().decode, {"ids": [65, 66]}, ids=(*NO_INTEGERS, [256], np.array([300])))
    for name, cls in (("Windows", windows.Windows), ("windows", windows.windows)):
        yield _windows(name, cls)


def _windows(name, cls):
    def draw(rng):
        return {"tokens": rng.integers(0, 9, 30), "batch_size": 2, "length": 3}

    def meaningless(_):
        few = {"restart": v.NO_COUNT} if name == "Windows" else {}
        return {"tokens": (*NO_INTEGERS, np.zeros(1, int)), "batch_size": v.NO_SIZE, "length": (*v.NO_SIZE, 999)} | few

    return Call(f"data.windows.{name}", lambda **a: cls(**a).batch(0), draw, meaningless)


def _splits():
    made = Examples(tuple(f"text {n}" for n in range(20)), np.arange(20) % 2, ("a", "b"), LoadReport("test"))
    shares = (*v.NO_NUMBER, -0.5, 1.0)
    good = {"examples": made, "validation": 0.2, "test": 0.2, "seed": 0}
    wrong = {"examples": (None, 3, ["text"], v.OBJECT), "validation": shares, "test": shares, "seed": NO_SEED}
    yield fixed("split", splits.split, good, **wrong, lowercase=v.NO_FLAG)
    yield fixed(
        "text_key", splits.text_key, {"text": "A b"}, text=(None, 3, b"a", ["a"], v.OBJECT), lowercase=v.NO_FLAG
    )


def calls():
    """All functions of this room."""
    yield from samplers()
    yield from formal()
    no_buckets = {"buckets": (*NO_INTEGERS, (), (3, 3), (0, 2)), "shuffle": (*v.NO_FLAG, None)}
    yield _batches(batching.Batches, "Batches", {"buckets": (3, 6)}, no_buckets)
    sizes = {"max_length": 4, "row_length": 8}
    yield _batches(packing.PackedBatches, "PackedBatches", sizes, dict.fromkeys(sizes, v.NO_SIZE))
    good = {"lengths": [3, 5], "max_length": 9, "num_buckets": 2}
    wrong = {"lengths": (*NO_INTEGERS, []), "max_length": v.NO_SIZE, "num_buckets": v.NO_SIZE}
    yield fixed("bucket_boundaries", batching.bucket_boundaries, good, **wrong)
    yield from _stream()
    yield from _packing()
    yield from _tokenizers()
    yield from _corpora()
    yield from _splits()
