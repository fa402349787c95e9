"""A run's tokenizer for programs that have not this library."""

from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.data.windows import Bytes
from qlstm_jax.problems.base import Interface

FILE = "tokenizer.json"


def interface(tokenizer: Tokenizer | Bytes) -> Interface:
    """How text becomes ids, under "tokenizer": its "kind" and

    - "offset" of kind "byte": an id is a byte of the UTF-8 text plus it;
    - "file" of others, which `tokenizers.Tokenizer.from_file` reads. No ids are added at the ends.
    """
    kind = "byte" if isinstance(tokenizer, Bytes) else tokenizer.kind
    if isinstance(tokenizer, Bytes) or kind == "byte":
        return Interface({"tokenizer": {"kind": kind, "offset": tokenizer.vocab_size - 256}})
    return Interface({"tokenizer": {"kind": kind, "file": FILE}}, {FILE: tokenizer.hugging_face()})
