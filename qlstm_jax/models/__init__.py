"""What is trained: `Classifier` (tokens in, one label out), `TokenModel` (an output at each token) and `Transducer` (a
tape in, a tape out).

`Transformer` is a baseline that stands where a recurrent layer of `qlstm_jax.nnx` does.
"""

from qlstm_jax.models.classifier import Classifier
from qlstm_jax.models.token_model import TokenModel
from qlstm_jax.models.transducer import Transducer
from qlstm_jax.models.transformer import Transformer

__all__ = ["Classifier", "TokenModel", "Transducer", "Transformer"]
