"""Where a module's dropout takes its keys from."""

from flax import nnx


def dropout_stream(rngs: nnx.Rngs) -> nnx.Rngs | None:
    """What an `nnx.Dropout` draws from where a call gives no keys: `rngs` if it has a stream "dropout" or "default".

    None where it has neither: the dropout then takes its keys from each call, and the module holds no state.
    """
    return rngs if {"dropout", "default"} & set(rngs) else None
