"""Modules of the library in one file and back: `save` and `load`, by safetensors, without pickle.

    qlstm_jax.save(layer, "layer.safetensors")
    layer = qlstm_jax.load("layer.safetensors")

The file is a safetensors file as other programs read it: an array for each parameter, named by its place in the module
("cells.0.input_kernel"). Its metadata has one key, `qlstm_jax`: JSON with the module's class and options. Reading runs
no code but the constructors of this library's own classes.

Not in the file: initialisers, sharding, streams of random numbers, and whether `train()` or `eval()` was called last.
"""

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from flax.core import meta

from qlstm_jax.interop import checks
from qlstm_jax.nnx.arguments import Inner, Unknown

KEY, FORMAT = "qlstm_jax", 1
ROOMS = ("qlstm_jax.nnx", "qlstm_jax.linen", "qlstm_jax.models")


def save(module: nnx.Module | nn.Module, path: str | Path, variables: Mapping[str, Any] | None = None) -> None:
    """Writes a module, whole or not at all.

    Args:
        module: a layer, cell or model of `qlstm_jax.nnx` or `qlstm_jax.models`; or one of `qlstm_jax.linen`.
        path: of the file; its folder exists.
        variables: of a Linen module, what its `init` gave; None for others.

    Raises:
        ValueError: for a module of another library, one that was changed since it was made, or variables where there
            should be none or the other way round.
        ImportError: without safetensors, which is in the extra `train`.
    """
    if isinstance(module, nn.Module) != (variables is not None):
        kind = "a Linen module, whose" if variables is None else "an NNX module, which holds its"
        raise ValueError(f"variables is {'None' if variables is None else 'given'}, and the module is {kind} variables")
    if variables is None:
        description, arrays = _describe(module), _named(nnx.state(module, nnx.Not(nnx.RngState)))
        expected = {name: a.shape for name, a in _named(nnx.state(_shapes(description))).items()}
        checks.checked(f"a {type(module).__name__} of the arguments it was made with", arrays, expected)
    else:
        description = _describe_linen(module)
        arrays = traverse_util.flatten_dict(meta.unbox(variables), sep=".")
    header = {KEY: json.dumps({"format": FORMAT, **description})}
    # Contiguous, as safetensors writes the memory as it is.
    stored = {name: np.array(a, order="C") for name, a in arrays.items()}
    unfinished = Path(f"{path}.unfinished")
    _safetensors("numpy").save_file(stored, unfinished, metadata=header)
    os.replace(unfinished, path)


def load(path: str | Path) -> Any:
    """The module that `save` wrote, or (module, variables) of a Linen one.

    It is as newly made: in training mode where that matters, so call `eval()` to evaluate; dropout takes its keys from
    each call, `rngs=`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another kind or of a newer version, arrays that do not fit the options, or float64
            arrays where JAX has no float64.
        ImportError: as `save`.
    """
    description, arrays = _read(path)
    if description["class"].startswith("qlstm_jax.linen."):
        module = _class(path, description["class"])(**_decoded(path, description["arguments"]))
        return module, traverse_util.unflatten_dict({name: jnp.array(a) for name, a in arrays.items()}, sep=".")
    try:
        module = _shapes(description, path)
    except TypeError as error:  # an option of another version
        raise ValueError(f"{path} does not fit this version of qlstm_jax: {error}") from error
    state = nnx.state(module)
    expected = {name: a.shape for name, a in _named(state).items()}
    arrays = checks.checked(f"the {description['class']} that {path} describes", arrays, expected)
    flat = {place: jnp.array(arrays[_name(place)]) for place in traverse_util.flatten_dict(nnx.to_pure_dict(state))}
    nnx.update(module, traverse_util.unflatten_dict(flat))
    return module


def _safetensors(part: str) -> ModuleType:
    try:
        return importlib.import_module(f"safetensors.{part}")
    except ModuleNotFoundError as error:
        text = f'qlstm_jax.save and load need {error.name}, which is not installed; run: pip install "qlstm_jax[train]"'
        raise ImportError(text, name=error.name) from error


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, arrays by name)."""
    safetensors = _safetensors("numpy")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected one that qlstm_jax.save wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    if KEY not in header:
        raise ValueError(
            f"{path} has no options of a module; expected a file that qlstm_jax.save wrote. Weights of other libraries "
            "are read by safetensors.numpy.load_file and qlstm_jax.interop"
        )
    description = json.loads(header[KEY])
    if description["format"] != FORMAT:
        raise ValueError(f"{path} has format {description['format']}; expected {FORMAT}, that of this version")
    for name, array in arrays.items():
        if array.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
            raise ValueError(f"{path}: {name} is float64; expected jax_enable_x64 on, so that no digits are lost")
    return description, arrays


def _describe(module: Any) -> dict[str, Any]:
    """The class and arguments of an NNX module, ready for JSON."""
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not name.startswith(ROOMS) or not hasattr(module, "arguments"):
        raise ValueError(
            f"the module is a {name}; expected a layer, cell or model of qlstm_jax. Of a module of your own save those "
            "in it, or its nnx.state"
        )
    arguments = {name: _encoded(module, name, value) for name, value in module.arguments}
    return {"class": name, "arguments": arguments}


def _encoded(module: Any, name: str, value: Any) -> Any:
    if isinstance(value, Inner):
        return {"module": _describe(getattr(module, value.attribute))}
    if isinstance(value, Unknown):
        raise ValueError(f"{name} of the {type(module).__name__} is {value.text}; expected a value that JSON has")
    if dataclasses.is_dataclass(value):
        kind, fields = type(value), {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"config": f"{kind.__module__}.{kind.__qualname__}", "fields": fields}
    return value


def _describe_linen(module: Any) -> dict[str, Any]:
    kind = type(module)
    if kind.__module__ != "qlstm_jax.linen":
        raise ValueError(f"the module is a {kind.__module__}.{kind.__qualname__}; expected one of qlstm_jax.linen")
    fields = [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
    values = {name: getattr(module, name) for name in fields if not name.endswith("_init")}
    named = {n: jnp.dtype(v).name if n.endswith("dtype") and v is not None else v for n, v in values.items()}
    return {"class": f"qlstm_jax.linen.{kind.__qualname__}", "arguments": named}


def _class(path: Any, name: str) -> Callable[..., Any]:
    """A class of the library by its name; nothing else is ever imported."""
    room, _, kind = name.rpartition(".")
    if any(room == allowed or room.startswith(f"{allowed}.") for allowed in ROOMS):
        found = getattr(importlib.import_module(room), kind, None)
        if isinstance(found, type) and found.__module__ == room:
            return found
    raise ValueError(f"{path} holds a {name}, which this version of qlstm_jax does not have")


def _decoded(path: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the constructor takes them."""
    decoded = {}
    for name, value in arguments.items():
        if isinstance(value, dict) and "module" in value:
            value = _made(path, value["module"])
        elif isinstance(value, dict):
            value = _class(path, value["config"])(**value["fields"])
        decoded[name] = value
    return decoded


def _made(path: Any, description: Mapping[str, Any]) -> Any:
    arguments = _decoded(path, description["arguments"])
    return _class(path, description["class"])(**arguments, rngs=nnx.Rngs(params=0))


def _shapes(description: Mapping[str, Any], path: Any = "the module") -> Any:
    """The module with shapes for arrays: none is drawn."""
    return nnx.eval_shape(lambda: _made(path, description))


def _name(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))


def _named(state: Any) -> dict[str, Any]:
    return {_name(place): a for place, a in traverse_util.flatten_dict(nnx.to_pure_dict(state)).items()}
