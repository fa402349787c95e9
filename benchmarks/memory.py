"""The memory of a training step on each device, from the compiled program: meshes, pieces, precision, remat.

JAX_NUM_CPU_DEVICES=8 python benchmarks/memory.py

Nothing is run: the step is compiled by shapes alone. "state" is what a device holds between steps (parameters,
optimiser, key), "step" what it takes besides while it computes one.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import jax
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.training import config as configs
from qlstm_jax.training.beginning import expected, first_state, run_keys, static_model
from qlstm_jax.training.meshes import divided_step, make_mesh, using
from qlstm_jax.training.step import configured_step, make_optimizer

ONE = {"parallel.mesh": "data:1"}
VARIANTS = {
    "one device": ONE,
    "accumulate 8": {**ONE, "train.accumulate": 8},
    "bfloat16 parameters": {**ONE, "train.param_dtype": "bfloat16"},
    "bfloat16 parameters and activations": {**ONE, "train.param_dtype": "bfloat16", "model.dtype": "bfloat16"},
    "adafactor": {**ONE, "train.optimizer": "adafactor"},
    "remat layers": {**ONE, "model.remat": "layers"},
    "data:8": {"parallel.mesh": "data:8"},
    "fsdp:8": {"parallel.mesh": "fsdp:8"},
    "data:2,fsdp:4": {"parallel.mesh": "data:2,fsdp:4"},
    "fsdp:8, adafactor, remat layers": {
        "parallel.mesh": "fsdp:8",
        "train.optimizer": "adafactor",
        "model.remat": "layers",
    },
}


def step_memory(args, settings):
    """(bytes of the state, bytes besides) on one device of the config's mesh."""
    config = configs.default()
    config.problem, config.recall.length = "recall", args.length
    config.model.cell, config.model.num_layers = args.cell, args.layers
    config.model.hidden_size = config.model.embedding_size = args.hidden
    config.train.batch_size = args.batch
    config.update_from_flattened_dict(settings)
    mesh, optimizer = make_mesh(config), make_optimizer(config.train)
    with tempfile.TemporaryDirectory() as folder:
        problem = problems.make(config, Path(folder))
    model = static_model(problem)
    model.train()
    step = divided_step(configured_step(problem, nnx.graphdef(model), optimizer, config.train, axis=None), mesh)
    state = expected(partial(first_state, problem, config, optimizer), run_keys(0), mesh)
    key = state.key
    state = state._replace(key=jax.ShapeDtypeStruct(key.shape, key.dtype))
    with using(mesh):
        memory = step.lower(state, None).compile().memory_analysis()
    held = memory.argument_size_in_bytes
    return held, memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def main():
    """Reads the flags and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="lstm", help="as model.cell")
    parser.add_argument("--layers", type=int, default=4, help="layers")
    parser.add_argument("--hidden", type=int, default=512, help="hidden size")
    parser.add_argument("--batch", type=int, default=64, help="sequences, of all devices together")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    args = parser.parse_args()
    if jax.device_count() < 8:
        parser.error(f"there are {jax.device_count()} devices; expected 8, for example by JAX_NUM_CPU_DEVICES=8")
    print(
        f"{args.layers} layers of {args.cell}, H {args.hidden}, batch {args.batch} of {args.length}; MB on a device\n"
    )
    print("| | state | step |\n|---|---|---|")
    for name, settings in VARIANTS.items():
        held, besides = step_memory(args, settings)
        print(f"| {name} | {held / 1e6:.1f} | {besides / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
