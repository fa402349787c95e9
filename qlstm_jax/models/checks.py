"""Checks of the arguments that the models have in common."""

from typing import Any

from qlstm_jax.cells import common
from qlstm_jax.nnx.checks import check_rngs


def check_model(layer: Any, rngs: Any, *, rates: dict[str, Any], **sizes: Any) -> None:
    """Checks the arguments that the models over a sequence layer are made with.

    Args:
        layer: a `SequenceLayer`.
        rngs: an `nnx.Rngs`.
        rates: of dropout, by name.
        sizes: positive integers, by name.

    Raises:
        TypeError: for a layer or rngs that are none.
        ValueError: for a size or rate out of range.
    """
    common.check_sizes(**sizes)
    common.check_rates(**rates)
    if isinstance(layer, type) or not callable(layer) or not hasattr(layer, "output_size"):
        raise TypeError(
            f"layer is {common.kind(layer)}; expected a sequence layer, such as qlstm_jax.nnx.LSTM(8, 16, rngs=rngs)"
        )
    check_rngs(rngs)
