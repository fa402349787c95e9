"""A model as programs of their own: `export` writes a folder that runs with JAX alone, without this library.

    qlstm_jax.export(model, "exported")
    qlstm-export --workdir=runs/reviews --out=exported      the same of a trained run

| file | what it holds |
|---|---|
| `sequence.jaxexport` | (inputs, seq_lengths) → outputs: whole sequences, for any number of rows |
| `step.jaxexport` | (carry, input, reset) → (carry, outputs): one token a row; of models that have a carry |
| `weights.safetensors` | the parameters and options, as `qlstm_jax.load` reads them; the programs have their own copy |
| `manifest.json` | the shapes and dtypes of what goes in and out, the platforms, versions, and what the caller adds |

A program is read by `jax.export.deserialize`, for which JAX wants the package flatbuffers. The carry is a list of
arrays whose shapes the manifest has. A stream begins with any carry, such as zeros, and a true `reset`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export as programs
from jaxtyping import Array

from qlstm_jax import __version__, models, saving
from qlstm_jax.cells import common

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
Shape = jax.ShapeDtypeStruct


def export(
    model: nnx.Module,
    folder: str | Path,
    *,
    length: int | None = None,
    platforms: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes a model's programs, its weights and their description.

    Args:
        model: a `Classifier`, `TokenModel`, `Predictor`, `Transducer` or `XLSTMLanguageModel`. Dropout is off.
        folder: a new or empty one; it is made if it is missing.
        length: T, the positions of the program for whole sequences; None for any number. The trees, PR-LSTM, minLSTM
            and minGRU, need one; shorter sequences are right padded to it, which changes nothing.
        platforms: of "cpu", "cuda" and "tpu"; None for all for which the model can be exported.
        about: keys of the manifest besides, which JSON has.
        files: texts by the names of files to write beside the others, such as a tokenizer's.

    Returns:
        What the manifest holds.

    Raises:
        TypeError: for another model.
        ValueError: if the folder holds something, for a length out of range or none where one is needed, or for a
            platform that is none of these.
        NotImplementedError: if the model has an operation that a named platform lacks.
        ImportError: without safetensors or flatbuffers, which are in the extra `train`.
    """
    check(folder, length, platforms)
    _check_flatbuffers()
    token = _token(model)
    made = _evaluating(model)
    calls = {"sequence": _sequence(made, token, length)}
    if made.has_carry:
        calls["step"] = _step(made, token)
    found = _exported(calls, platforms)
    manifest = {
        "format": FORMAT,
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "platforms": list(next(iter(found.values())).platforms),
        "weights": WEIGHTS,
        "programs": {name: _described(name, calls[name][1], program) for name, program in found.items()},
        "versions": {
            "qlstm_jax": __version__,
            "jax": jax.__version__,
            "calling_convention": next(iter(found.values())).calling_convention_version,
        },
        **({"vocab_size": made.embed.num_embeddings} if token.dtype == jnp.int32 else {}),
        **(about or {}),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"  # before anything is written
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    saving.save(made, folder / WEIGHTS)
    for name, program in found.items():
        (folder / f"{name}.jaxexport").write_bytes(program.serialize())
    for name, content in (files or {}).items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / MANIFEST).write_text(text, encoding="utf-8")  # last: with it the folder is whole
    return manifest


def check(folder: str | Path, length: int | None, platforms: Sequence[str] | None) -> None:
    """Raises ValueError for arguments that `export` cannot have, whatever the model is."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; expected a new or an empty folder")
    if length is not None:
        common.check_sizes(length=length)
    for platform in platforms or ():
        common.check_choice("platforms", platform, PLATFORMS)
    if platforms is not None and (not platforms or len(set(platforms)) != len(platforms)):
        raise ValueError(f"platforms is {common.shown(platforms)}; expected one or more of {PLATFORMS}, each once")


def _check_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ModuleNotFoundError as error:
        text = 'qlstm_jax.export needs flatbuffers, which is not installed; run: pip install "qlstm_jax[train]"'
        raise ImportError(text, name=error.name) from error


def _token(model: Any) -> Shape:
    """One position of one sequence as the model reads it."""
    if isinstance(model, models.Classifier | models.TokenModel | models.XLSTMLanguageModel):
        return Shape((), jnp.int32)
    if isinstance(model, models.Predictor | models.Transducer):
        return Shape((model.layer.in_features,), jnp.float32)
    raise TypeError(
        f"model is {common.kind(model)}; expected a Classifier, TokenModel, Predictor, Transducer or XLSTMLanguageModel"
    )


def _evaluating(model: nnx.Module) -> Any:
    """A copy of the model that drops nothing."""
    copy = nnx.clone(model)
    copy.eval()
    return copy


Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and the shapes of its arguments


def _sequence(model: Any, token: Shape, length: int | None) -> Call:
    batch, time = programs.symbolic_shape("batch, time")
    inputs = Shape((batch, time if length is None else length, *token.shape), token.dtype)

    def run(inputs: Array, seq_lengths: Array) -> Any:
        return model(inputs, seq_lengths=seq_lengths)

    return run, (inputs, Shape((batch,), jnp.int32))


def _step(model: Any, token: Shape) -> Call:
    (batch,) = programs.symbolic_shape("batch")
    start = jax.eval_shape(lambda: model.initialize_carry(1))
    leaves, structure = jax.tree.flatten(start)
    carry = [Shape((batch, *a.shape[1:]), a.dtype) for a in leaves]

    def run(carry: list[Array], inputs: Array, reset: Array) -> Any:
        end, outputs = model.step(jax.tree.unflatten(structure, carry), inputs, reset=reset)
        return jax.tree.leaves(end), outputs

    return run, (carry, Shape((batch, *token.shape), token.dtype), Shape((batch,), jnp.bool))


def _exported(calls: Mapping[str, Call], platforms: Sequence[str] | None) -> dict[str, programs.Exported]:
    """The programs for these platforms; for None, those of PLATFORMS for which all of them can be exported."""

    def exported(names: Sequence[str]) -> dict[str, programs.Exported]:
        return {
            name: programs.export(jax.jit(run), platforms=names)(*arguments) for name, (run, arguments) in calls.items()
        }

    if platforms is not None:
        return exported(platforms)
    try:
        return exported(PLATFORMS)
    except (NotImplementedError, ValueError):
        kept = [name for name in PLATFORMS if _can_be(exported, name)]
        if not kept:
            raise
    return exported(kept)


def _can_be(exported: Callable[[Sequence[str]], Any], platform: str) -> bool:
    try:
        exported([platform])
    except (NotImplementedError, ValueError):  # an operation that it lacks, or one of no lasting form
        return False
    return True


def _described(name: str, arguments: tuple[Any, ...], program: programs.Exported) -> dict[str, Any]:
    """The file of a program, and names, shapes and dtypes of what goes in and out."""
    *carry, outputs = program.out_avals
    kept = {"carry": [_specified(a) for a in carry]} if name == "step" else {}
    names = ("inputs", "seq_lengths") if name == "sequence" else ("inputs", "reset")
    given = {label: _specified(a) for label, a in zip(names, arguments[-2:], strict=True)}
    return {"file": f"{name}.jaxexport", "arguments": kept | given, "results": kept | {"outputs": _specified(outputs)}}


def _specified(a: Any) -> dict[str, Any]:
    """Shape and dtype, a size that any call may choose by its name."""
    shape = [str(size) if programs.is_symbolic_dim(size) else int(size) for size in a.shape]
    return {"shape": shape, "dtype": jnp.dtype(a.dtype).name}
