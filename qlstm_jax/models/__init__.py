"""What is trained: `Classifier` (tokens in, one label out) and `Transducer` (a tape in, a tape out)."""

from qlstm_jax.models.classifier import Classifier
from qlstm_jax.models.transducer import Transducer

__all__ = ["Classifier", "Transducer"]
