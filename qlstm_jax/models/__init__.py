"""Models to train: `Classifier` (tokens in, one label out), `Predictor` (vectors in, one vector out), `TokenModel` (an
output at each token) and `Transducer` (a tape in, a tape out).

`Transformer` and `XLSTM` are called as the layers of `qlstm_jax.nnx` and can replace them; `XLSTMLanguageModel` is the
official language model of xLSTM (of an `XLSTMConfig`) and of xLSTM 7B (of an `MLSTM7BConfig`), whose weights
`qlstm_jax.interop` reads.
"""

from qlstm_jax.models.classifier import Classifier
from qlstm_jax.models.predictor import Predictor
from qlstm_jax.models.token_model import TokenModel
from qlstm_jax.models.transducer import Transducer
from qlstm_jax.models.transformer import Transformer
from qlstm_jax.models.xlstm import XLSTM, MLSTM7BConfig, XLSTMConfig, XLSTMLanguageModel, XLSTMStack

__all__ = [
    "XLSTM",
    "Classifier",
    "MLSTM7BConfig",
    "Predictor",
    "TokenModel",
    "Transducer",
    "Transformer",
    "XLSTMConfig",
    "XLSTMLanguageModel",
    "XLSTMStack",
]
