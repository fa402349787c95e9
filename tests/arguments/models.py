"""The models and what draws from them."""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx

from qlstm_jax import models
from qlstm_jax.models import generate, pooling, xlstm
from qlstm_jax.nnx import LSTM, MinGRU
from tests.arguments import values as v
from tests.arguments.cells import batch, masks, no_masks, pick
from tests.arguments.modules import FLAGS, NO_RNGS
from tests.arguments.outcomes import Call

NO_LAYER = (None, 3, "lstm", LSTM, [1], v.OBJECT)
POOLINGS = pooling.POOLINGS
XLSTM_CONFIG = {"embedding_size": 4, "num_heads": 2, "inner_multiple": 8, "feedforward_multiple": 2}
SEVEN_B = {"embedding_size": 8, "num_heads": 2, "feedforward_multiple": 2}


@functools.cache
def layer(features=4):
    """A layer for models."""
    return MinGRU(features, v.H, rngs=nnx.Rngs(0))


@functools.cache
def model(name, option=None):
    """A model, quiet."""
    rngs = nnx.Rngs(0)
    made = {
        "Classifier": lambda: models.Classifier(v.V, 3, layer(), embedding_size=4, pooling=option, rngs=rngs),
        "Predictor": lambda: models.Predictor(layer(v.D), 2, pooling=option, rngs=rngs),
        "TokenModel": lambda: models.TokenModel(v.V, v.V, layer(), embedding_size=4, rngs=rngs),
        "Transducer": lambda: models.Transducer(layer(v.D), 2, rngs=rngs),
        "Transformer": lambda: models.Transformer(v.D, v.H, num_heads=2, positions=option, rngs=rngs),
        "XLSTM": lambda: models.XLSTM(v.D, v.H, num_layers=2, slstm_at=option, num_heads=2, chunk_size=2, rngs=rngs),
        "XLSTMStack": lambda: models.XLSTMStack(config(option), rngs=rngs),
        "XLSTMLanguageModel": lambda: models.XLSTMLanguageModel(config(option, vocab_size=v.V), rngs=rngs),
    }[name]()
    made.eval()
    return made


def config(kind, **options):
    """Of a small stack: "7b", or which blocks are sLSTM blocks."""
    if kind == "7b":
        return models.MLSTM7BConfig(**SEVEN_B, num_blocks=1, **options)
    return models.XLSTMConfig(**XLSTM_CONFIG, num_blocks=2, slstm_at=kind, chunk_size=2, **options)


def constructor(name, cls, sizes, rest, **meaningful):
    """Of a model: arguments of known kinds by the names in `rest`, others as given: (meaningful, meaningless)."""
    kinds = {
        "dropout": ((0.0, 0.5), v.NO_RATE),
        "embedding_dropout": ((0.0, 0.5), v.NO_RATE),
        "variational": ((True, False), (*v.NO_FLAG, None)),
        "pooling": (POOLINGS, v.NO_CHOICE),
        "dtype": (("float32", "bfloat16"), [d for d in v.NO_DTYPE if d is not None]),
        "param_dtype": (("float32",), v.NO_DTYPE),
        "bidirectional": ((False,), (*v.NO_FLAG, None, True)),
        "causal": ((True, False), (*v.NO_FLAG, None)),
    }
    table = {n: kinds[n] for n in rest} | meaningful

    def draw(rng):
        a = dict.fromkeys(sizes, 4) | {"rngs": nnx.Rngs(0)}
        return a | {
            n: pick(rng, good) for n, (good, _) in table.items() if n in ("layer", "num_heads") or rng.random() < 0.5
        }

    def meaningless(_):
        wrong = dict.fromkeys(sizes, v.NO_SIZE) | {"rngs": NO_RNGS}
        return wrong | {n: bad for n, (_, bad) in table.items()}

    return Call(f"models.{name}", cls, draw, meaningless)


def constructors():
    """Of all models."""
    given = {"layer": ((layer(),), NO_LAYER)}
    pool = ("dropout", "embedding_dropout", "variational")
    yield constructor(
        "Classifier", models.Classifier, ("vocab_size", "num_classes", "embedding_size"), (*pool, "pooling"), **given
    )
    yield constructor("TokenModel", models.TokenModel, ("vocab_size", "output_size", "embedding_size"), pool, **given)
    yield constructor("Predictor", models.Predictor, ("output_size",), ("dropout", "pooling"), **given)
    readout = {"readout": (("relu", "none"), v.NO_CHOICE)}
    yield constructor("Transducer", models.Transducer, ("output_size",), ("dropout",), **given, **readout)
    features, rest = ("in_features", "hidden_features"), ("dropout", "bidirectional", "dtype", "param_dtype")
    options = {
        "positions": (("none", "sinusoidal", "rotary", "alibi"), v.NO_CHOICE),
        "num_heads": ((1, 2), (*v.NO_SIZE, 3)),
        "feedforward": ((1, 2), v.NO_SIZE),
        "num_layers": ((1, 2), v.NO_SIZE),
    }
    yield constructor("Transformer", models.Transformer, features, (*rest, "causal"), **options)
    no_places = ("2:9", "x", "5", (9,), ("a",), (0.5,), 3, None, "1:", ":", (0, 0), v.OBJECT, (-1,), [None])
    options = {"slstm_at": (("", "all", "0", (0,)), no_places), "chunk_size": ((1, 2), v.NO_SIZE)}
    options |= {"num_heads": ((2, 4), v.NO_SIZE), "num_layers": ((1, 2), v.NO_SIZE)}
    yield constructor("XLSTM", models.XLSTM, features, rest, **options)
    for name, cls, base in (
        ("XLSTMConfig", models.XLSTMConfig, XLSTM_CONFIG),
        ("MLSTM7BConfig", models.MLSTM7BConfig, SEVEN_B),
    ):
        yield _config(name, cls, base | {"num_blocks": 2}, no_places)
    for name in ("XLSTMStack", "XLSTMLanguageModel"):
        yield _of_config(name, getattr(models, name))


def _config(name, cls, base, no_places):
    def meaningless(_):
        fields = {f.name: f for f in dataclasses.fields(cls)}
        wrong = dict.fromkeys(base, v.NO_SIZE) | {"vocab_size": [x for x in v.NO_SIZE if x is not None]}
        wrong |= {"dropout": v.NO_RATE, "dtype": [d for d in v.NO_DTYPE if d is not None], "chunk_size": v.NO_SIZE}
        wrong |= {"param_dtype": [d for d in v.NO_DTYPE if d is not None], "slstm_at": no_places}
        wrong |= dict.fromkeys(("inner_factor", "feedforward_factor", "key_factor", "gate_cap"), (*v.NO_NUMBER, 0, -1))
        wrong |= {"logit_cap": [x for x in (*v.NO_NUMBER, 0, -1) if x is not None]}
        wrong |= dict.fromkeys(("conv_size", "projection_block", "inner_multiple", "feedforward_multiple"), v.NO_SIZE)
        return {n: bad for n, bad in wrong.items() if n in fields}

    def draw(rng):
        return dict(base) | {"dropout": pick(rng, (0, 0.1))}

    return Call(f"models.{name}", cls, draw, meaningless)


def _of_config(name, cls):
    def draw(rng):
        return {"config": config(pick(rng, ("", "all", "0", "7b")), vocab_size=5), "rngs": nnx.Rngs(0)}

    def meaningless(_):
        return {"config": (None, 3, "config", {}, v.OBJECT, models.XLSTMConfig), "rngs": NO_RNGS}

    return Call(f"models.{name}", cls, draw, meaningless)


def _of_ids(name, option=None):
    """A call of a model that reads tokens."""
    words = "tokens" if name == "XLSTMLanguageModel" else "ids"

    def function(module, **arguments):
        return module(arguments.pop(words), **arguments)

    def draw(rng):
        b, t = batch(rng)
        a = {"module": model(name, option), words: v.integers(rng, 0, v.V - 1, b, t)} | masks(rng, b, t)
        if name == "Classifier":
            a.pop("resets", None)
            return {"seq_lengths": jnp.full(b, t)} | a
        if rng.random() < 0.3:
            a["initial_carry"] = a["module"].initialize_carry(b)
        return a | ({"return_carry": True} if rng.random() < 0.5 else {})

    def meaningless(a):
        wrong = {words: v.no_ids(a[words], v.V, a.get("seq_lengths"))} | no_masks(*a[words].shape)
        wrong["rngs"] = v.NO_RNGS
        if name == "Classifier":
            return {n: bad for n, bad in wrong.items() if n != "resets"}
        b = a[words].shape[0]
        wrong["initial_carry"] = v.no_carry(a["module"].initialize_carry(b), a["module"].initialize_carry(b + 1))
        if name == "TokenModel":  # the one array of a MinGRU is a carry of Flax
            wrong["initial_carry"] = [c for c in wrong["initial_carry"] if getattr(c, "shape", None) != (b, v.H)]
        return wrong | {"return_carry": v.NO_FLAG}

    return Call(f"models.{name}.call", function, draw, meaningless, traced=True)


def _packed():
    def function(module, ids, **arguments):
        return module.packed(ids, **arguments)

    def draw(rng):
        b, t = batch(rng)
        a = {"module": model("Classifier", pick(rng, POOLINGS)), "ids": v.integers(rng, 0, v.V - 1, b, t)}
        return a | {"seq_lengths": v.integers(rng, 0, t, b), "resets": rng.random((b, t)) < 0.3, "max_sequences": 3}

    def meaningless(a):
        wrong = {"ids": v.no_ids(a["ids"], v.V, a["seq_lengths"]), "max_sequences": v.NO_SIZE, "rngs": v.NO_RNGS}
        wrong |= no_masks(*a["ids"].shape)
        return {n: [*bad, None] if n in ("seq_lengths", "resets") else bad for n, bad in wrong.items()}

    return Call("models.Classifier.packed", function, draw, meaningless, traced=True)


def _of_vectors(name, options, method="__call__", flags=(), carried=False):
    """A call of a model that reads vectors, lists of numbers too where it is no layer."""
    is_layer = bool(flags) or name in ("Transformer", "XLSTM", "XLSTMStack")
    width = v.D if name != "XLSTMStack" else 4

    def function(module, xs, **arguments):
        return getattr(module, method)(xs, **arguments)

    def draw(rng):
        b, t = batch(rng)
        a = {"module": model(name, pick(rng, options)), "xs": v.numbers(rng, b, t, width)} | masks(rng, b, t)
        if not is_layer and (name == "Predictor" or method == "last"):
            a.pop("resets", None)
        if carried and rng.random() < 0.3:
            a[carried] = a["module"].initialize_carry(b)
        return a | {flag: True for flag in flags if flag in ("reverse", "keep_order") and rng.random() < 0.3}

    def meaningless(a):
        b, t = a["xs"].shape[:2]
        wrong = {"xs": v.no_numbers(a["xs"], lists=is_layer), "rngs": v.NO_RNGS} | no_masks(b, t)
        # More axes before time are a batch.
        wrong["xs"] = [x for x in wrong["xs"] if getattr(x, "ndim", 0) != 4]
        if not is_layer and (name == "Predictor" or method == "last"):
            wrong.pop("resets")
        if carried:
            wrong[carried] = v.no_carry(a["module"].initialize_carry(b), a["module"].initialize_carry(b + 1))
        return wrong | dict.fromkeys(flags, v.NO_FLAG)

    return Call(f"models.{name}.{method.strip('_')}", function, draw, meaningless, traced=True)


def _step(name, options):
    width = 4

    def function(module, carry, x):
        return module.step(carry, x)

    def draw(rng):
        module, b = model(name, pick(rng, options)), pick(rng, (0, 1, 2))
        x = v.integers(rng, 0, v.V - 1, b) if name == "XLSTMLanguageModel" else v.numbers(rng, b, width)
        return {"module": module, "carry": module.initialize_carry(b), "x": x}

    def meaningless(a):
        b = a["x"].shape[0]
        wrong = v.no_ids(a["x"], v.V) if name == "XLSTMLanguageModel" else v.no_numbers(a["x"])
        return {"x": wrong, "carry": v.no_carry(a["carry"], a["module"].initialize_carry(b + 1))}

    return Call(f"models.{name}.step", function, draw, meaningless, traced=True)


NO_MODEL = (None, 3, "model", LSTM, v.OBJECT, models.TokenModel)


def _generate():
    languages = (("TokenModel", None), ("XLSTMLanguageModel", "0"))

    def draw(rng):
        b, p = pick(rng, (1, 2)), 3
        a = {
            "model": model(*pick(rng, languages)),
            "prompts": v.integers(rng, 0, v.V - 1, b, p),
            "steps": 2,
            "key": v.KEY,
        }
        return a | {
            "seq_lengths": v.integers(rng, 1, p, b),
            "temperature": pick(rng, (0, 1.0)),
            "top_k": pick(rng, (0, 2)),
        }

    def meaningless(a):
        b, p = a["prompts"].shape
        wrong = {"model": NO_MODEL, "prompts": v.no_ids(a["prompts"], v.V, a["seq_lengths"]), "key": v.NO_KEY}
        wrong |= {"steps": v.NO_SIZE, "top_k": (*v.NO_COUNT, 1.5), "temperature": (*v.NO_NUMBER, -0.5)}
        wrong |= {"top_p": (*v.NO_NUMBER, 0, 1.5, -1), "window": [x for x in v.NO_SIZE if x is not None]}
        lengths = [x for x in (*v.no_lengths(b, p), None) if not isinstance(x, list)]
        return wrong | {"seq_lengths": [*lengths, [0] * b]}

    return Call("models.generate", generate.generate, draw, meaningless)


def _filter_logits():
    def draw(rng):
        logits = jnp.asarray(rng.normal(size=pick(rng, ((5,), (2, 5), (0, 5)))), jnp.float32)
        return {"logits": logits, "top_k": pick(rng, (0, 2, 9)), "top_p": 1.0}

    def meaningless(a):
        logits = (
            *v.NO_ARRAY,
            a["logits"].astype(complex),
            a["logits"].astype(bool),
            jnp.zeros(()),
            a["logits"].tolist(),
        )
        return {"logits": logits, "top_k": v.NO_COUNT, "top_p": (*v.NO_NUMBER, 0, 1.5)}

    def function(**arguments):  # what is not to be drawn is -inf
        return jnp.isneginf(generate.filter_logits(**arguments))

    return Call("models.filter_logits", function, draw, meaningless, traced=True)


def _slstm_positions():
    def draw(rng):
        return {"slstm_at": pick(rng, ("", "all", "0", (1,), "1:1")), "num_blocks": 2}

    bad = ("2:9", "x", "5", (9,), ("a",), (0.5,), 3, None, "1:", (0, 0), v.OBJECT)
    return Call(
        "models.slstm_positions", xlstm.slstm_positions, draw, lambda _: {"slstm_at": bad, "num_blocks": v.NO_SIZE}
    )


def calls():
    """All functions of this room."""
    yield from constructors()
    for option in POOLINGS:
        yield _of_ids("Classifier", option)
    yield _packed()
    yield _of_ids("TokenModel")
    for option in ("", "0", "7b"):
        yield _of_ids("XLSTMLanguageModel", option)
    yield _of_vectors("Predictor", POOLINGS)
    yield _of_vectors("Transducer", (None,))
    yield _of_vectors("Transducer", (None,), "last")
    positions = ("none", "sinusoidal", "rotary", "alibi")
    yield _of_vectors("Transformer", positions, flags=FLAGS[1:])
    yield _of_vectors("Transformer", positions, "last")
    yield _of_vectors("XLSTM", ("", "0", "all"), flags=FLAGS, carried="initial_carry")
    yield _of_vectors("XLSTM", ("", "0", "all"), "last")
    yield _of_vectors("XLSTMStack", ("", "0", "all"), flags=FLAGS[:1], carried="carry")
    yield _step("XLSTMStack", ("", "0", "all"))
    yield _step("XLSTMLanguageModel", ("", "0", "all"))
    yield _generate()
    yield _filter_logits()
    yield _slstm_positions()
