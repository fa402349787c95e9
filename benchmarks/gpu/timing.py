"""Runs that are timed against each other: JAX programs compiled side by side, PyTorch modules, rounds in turn."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Program:
    """A JAX function of given operands: compiled when asked, run by a call that waits for its end."""

    def __init__(self, function: Callable[..., Any], *operands: Any):
        self.jitted, self.operands = jax.jit(function), operands
        self.compile_seconds = 0.0
        self.temporary_mib = 0.0

    def compile(self) -> None:
        """Compiles, and reads how long that took and how much temporary memory the program wants."""
        start = time.perf_counter()
        self.compiled = self.jitted.lower(*self.operands).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self.compiled.memory_analysis()
        self.temporary_mib = memory.temp_size_in_bytes / 2**20 if memory else 0.0

    def __call__(self) -> Any:
        """The results, once they are there."""
        return jax.block_until_ready(self.compiled(*self.operands))


def layer_program(layer: nnx.Module, xs: jax.Array, *, backward: bool, method: str = "__call__") -> Program:
    """The mean square of a layer's outputs, with backward its gradients with respect to parameters and inputs too."""
    graph, state = nnx.split(layer)

    def loss(state: Any, xs: jax.Array) -> jax.Array:
        outputs = getattr(nnx.merge(graph, state), method)(xs)
        return jnp.mean(jnp.square(outputs.astype(jnp.float32)))

    return Program(jax.grad(loss, argnums=(0, 1), allow_int=True) if backward else loss, state, xs)


def torch_run(module: Any, shape: tuple[int, ...], dtype: str, *, backward: bool) -> Callable[[], None]:
    """The same of a PyTorch module on the GPU, if there is one; where it has several outputs the first counts."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    module = module.to(device, kind)
    inputs = torch.randn(shape, device=device, dtype=kind, requires_grad=backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            outputs = module(inputs)
            outputs = outputs[0] if isinstance(outputs, tuple) else outputs
            loss = outputs.float().square().mean()
        if backward:
            module.zero_grad()
            inputs.grad = None
            loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def compile_all(runs: dict[Any, Any]) -> dict[Any, str]:
    """Compiles the JAX programs of `runs` side by side and runs each once; the errors of those that cannot be."""

    def compile_one(run: Any) -> str:
        return _error_of(run.compile) if isinstance(run, Program) else ""

    with ThreadPoolExecutor(12) as pool:
        errors = dict(zip(runs, pool.map(compile_one, runs.values()), strict=True))
    for key, run in runs.items():
        errors[key] = errors[key] or _error_of(run)
    return {key: error for key, error in errors.items() if error}


def _error_of(run: Callable[[], Any]) -> str:
    """What a run raises, in words, "" for nothing. The caller makes a line of it; the others go on without that run."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:400]}"
    return ""


def time_in_turn(runs: dict[str, Callable[[], Any]], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each run in each round, one after the other; at least 3 rounds, no more than fit `seconds`."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - begin > seconds:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return taken


def summary(taken: list[float]) -> dict[str, Any]:
    """The median and the range of a run's milliseconds."""
    return {
        "ms": round(statistics.median(taken), 3),
        "least": round(min(taken), 3),
        "most": round(max(taken), 3),
        "rounds": len(taken),
    }
