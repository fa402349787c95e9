"""What is trained: `Classifier` (tokens in, one label out) and `Transducer` (a tape in, a tape out).

`Transformer` is a baseline that stands where a recurrent layer of `qlstm_jax.nnx` does.
"""

from qlstm_jax.models.classifier import Classifier
from qlstm_jax.models.transducer import Transducer
from qlstm_jax.models.transformer import Transformer

__all__ = ["Classifier", "Transducer", "Transformer"]
