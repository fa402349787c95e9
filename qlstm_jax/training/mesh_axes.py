"""`parallel.mesh` as text: its axes and sizes, and what of a config goes with it."""

import math

from qlstm_jax import shardings
from qlstm_jax.problems.config import ConfigError

PLANNED = {"model": "a layer's units", "time": "a sequence"}  # what such an axis would cut


def parse(text: str) -> dict[str, int]:
    """Reads "data:2,fsdp:4" as {"data": 2, "fsdp": 4}.

    Raises:
        ConfigError: for an axis that there is not, one given twice, or a size below 1.
    """
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, colon, size = (word.strip() for word in part.partition(":"))
        if not colon or not size.isdecimal() or not int(size):
            raise ConfigError(f"parallel.mesh is {text!r}; expected AXIS:SIZE,... such as 'data:2,fsdp:4'")
        if name in PLANNED:
            raise ConfigError(
                f"parallel.mesh is {text!r}; no program here cuts {PLANNED[name]} over devices, so that an axis "
                f"{name!r} would only repeat the work; expected data, which cuts the batch, and fsdp, which cuts "
                "parameters too"
            )
        if name not in shardings.AXES:
            raise ConfigError(f"parallel.mesh is {text!r}, with an axis {name!r}; expected data or fsdp")
        if name in axes:
            raise ConfigError(f"parallel.mesh is {text!r}, with {name!r} twice; expected each axis once")
        axes[name] = int(size)
    return axes


def check_mapping(mapping: str, mesh: str, num_devices: int) -> None:
    """Checks that train.mapping and train.num_devices go with a mesh.

    Raises:
        ConfigError: if they do not, or for a mesh that cannot be.
    """
    if not mesh:
        return
    sizes = parse(mesh)
    if mapping not in ("", "jit"):
        raise ConfigError(
            f"train.mapping is {mapping!r} and parallel.mesh {mesh!r}; expected mapping jit, as only the compiler "
            "divides a program over a mesh: --config.train.mapping=jit, or --config.parallel.mesh= for none"
        )
    number = math.prod(sizes.values())
    if num_devices not in (0, number):
        raise ConfigError(
            f"train.num_devices is {num_devices} and parallel.mesh {mesh!r}, of {number} devices; expected 0: the mesh "
            "says how many there are"
        )
