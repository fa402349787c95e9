"""Language modelling by truncated back-propagation: each window of text begins with the carry that the last left."""

from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.cells.common import where
from qlstm_jax.data.batching import stream
from qlstm_jax.data.corpus import Corpus
from qlstm_jax.data.windows import Windows, bits_per_byte
from qlstm_jax.data.windows import windows as token_windows
from qlstm_jax.models.generate import check_options, generate
from qlstm_jax.problems import plots, tokenizers
from qlstm_jax.problems.base import Batch, Interface, Model, Problem, Sums
from qlstm_jax.problems.config import ConfigError, check_split, fraction, not_negative, one_of, positive
from qlstm_jax.problems.lm_data import LMData
from qlstm_jax.problems.models import token_model
from qlstm_jax.shardings import split_rows, whole_rows

CONTEXT = 4  # windows of training that the picture's contexts are long
SAMPLE: dict[str, Any] = {"steps": 400, "temperature": 0.8, "top_p": 0.95}  # of eval/sample.txt


class LMProblem(LMData, Problem):
    """Predicts the next token of `LMData`'s windows. A causal Transformer, without a carry, reads each by itself."""

    name = "lm"
    evaluates = ("tokens",)
    rules: ClassVar = {
        "max_bytes": not_negative,
        "validation": fraction,
        "test": fraction,
        "split_seed": not_negative,
        "tokenizer": one_of("byte", "bpe"),
        "vocab_size": positive,
        "length": positive,
        "restart": not_negative,
        "validation_tokens": positive,
    }
    on_device = False
    select, select_mode = "bits_per_byte", "min"
    validation_metrics = ("loss", "accuracy", "bits_per_byte", "perplexity")

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            path="",  # a file or a folder of text files; "" is the sources of Python's own standard library
            dataset="",  # or a TFDS name, tiny_shakespeare; then path may name the folder of TFDS's datasets
            feature="text",  # of that dataset, that holds the text
            pattern="*.txt",  # a folder: names of its files, at any depth
            max_bytes=0,  # cut after so many bytes, of a dataset each part; 0: all
            validation=0.05,  # shares of the bytes, where a dataset has not both parts itself
            test=0.05,
            split_seed=0,
            tokenizer="byte",  # byte or bpe
            vocab_size=4096,  # bpe
            length=128,  # tokens of a window, through which gradients go back
            restart=0,  # windows after which a row drops its carry in training, rows taking turns; 0: at the text's end
            validation_tokens=65536,  # at most, of the validation part
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks that the model does not see what it predicts, and the shares of the parts.

        Raises:
            ConfigError: for a layer that reads backward or has no carry, or shares that leave nothing to train on.
        """
        model = config.model
        if model.bidirectional:
            raise ConfigError(
                "model.bidirectional is True; expected False: a language model must not see what it predicts"
            )
        if model.cell == "transformer" and not model.transformer.causal:
            raise ConfigError(
                "model.transformer.causal is False; expected True: a language model must not see what it predicts "
                "(--config.model.transformer.causal=True)"
            )
        if model.cell == "pr_lstm" and model.pr_lstm.max_offset:
            raise ConfigError(
                f"model.pr_lstm.max_offset is {model.pr_lstm.max_offset}; expected 0: a tree that began before its "
                "first token has no carry for the next window"
            )
        check_split("lm", config.lm)

    @classmethod
    def unused(cls, config: ConfigDict) -> list[str]:
        """Notes a restart of rows that have no carry."""
        if config.lm.restart and config.model.cell == "transformer":
            return ["lm.restart: not used, as model.cell is 'transformer', which has no carry"]
        return []

    def __init__(self, config: ConfigDict, workdir: str | Path, *, corpus: Corpus | None = None) -> None:
        super().__init__(config, workdir, corpus=corpus)
        self._read = jax.jit(self._score, static_argnums=0)

    def stream(self, start: int) -> Generator[Batch, None, None]:
        """Yields training windows from number `start` on, without end."""
        return stream(self.windows("train"), start)

    def interface(self) -> Interface:
        """Returns the tokenizer."""
        return tokenizers.interface(self.tokenizer)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `TokenModel` from the tokenizer's vocabulary to itself."""
        return token_model(self.config.model, self.tokenizer.vocab_size, self.tokenizer.vocab_size, rngs)

    def initial_carry(self, model: Model, batch_size: int) -> Any:
        """Returns the layer's carry; None for a layer without one."""
        return model.initialize_carry(batch_size) if model.has_carry else None

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the next token, nothing going before the window."""
        return _sums(model(batch.tokens[:, :-1], rngs=rngs), batch.tokens[:, 1:])

    def continued_loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None, carry: Any) -> tuple[Sums, Any]:
        """Returns the same from the carry of the window before, which a stream that begins drops."""
        carry = where(batch.starts, model.initialize_carry(batch.starts.shape[0]), carry)
        carry, logits = model(batch.tokens[:, :-1], initial_carry=carry, return_carry=True, rngs=rngs)
        return _sums(logits, batch.tokens[:, 1:]), carry

    def _score(self, graphdef: nnx.GraphDef[Any], params: Any, batch: Batch, carry: Any) -> Any:
        """(nats by position (T,) as a mean over the rows, accuracy, carry)."""
        model = nnx.merge(graphdef, params)
        batch, carry = split_rows((batch, carry))
        ids, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        carry, logits = (None, model(ids)) if carry is None else model(ids, initial_carry=carry, return_carry=True)
        losses, right = _by_token(logits, targets)
        return *whole_rows((jnp.mean(losses, axis=0), jnp.mean(right))), carry

    def figures(self, model: Model, part: str, tokens: int, carry: Any = None) -> dict[str, float]:
        """Returns loss (nats a token), accuracy, bits per byte and perplexity of a part, read with carried state.

        Args:
            model: in evaluation mode.
            part: "train", "validation" or "test".
            tokens: about how many to read at most, of all streams together: whole windows, at least one.
            carry: what the streams begin with; by default nothing.
        """
        windows = self.windows(part)
        graphdef, params = nnx.split(model, nnx.Param)
        carry, losses, right = self.initial_carry(model, windows.batch_size) if carry is None else carry, [], []
        for batch in stream(windows, 0, _count(windows, tokens)):
            loss, accuracy, carry = self._read(graphdef, params, batch, carry)
            losses.append(loss)
            right.append(accuracy)
        nats = float(np.mean(jax.device_get(losses)))
        return {
            "loss": nats,
            "accuracy": float(np.mean(jax.device_get(right))),
            "bits_per_byte": self._bits_per_byte(nats, part),
            "perplexity": float(np.exp(nats)),  # inf where math.exp would raise
        }

    def _bits_per_byte(self, nats: float, part: str) -> float:
        return bits_per_byte(nats, len(self.tokens[part]), sum(map(len, self.contents[part])))

    def by_position(self, model: Model, part: str, tokens: int) -> np.ndarray:
        """Returns bits per byte at each position of a context (C,), over contexts that begin with no carry.

        C is four windows of training, or the whole part where that is shorter.
        """
        ids = self.tokens[part]
        length = min(CONTEXT * self.config.lm.length, len(ids) - 1)
        windows = token_windows(ids, self.config.train.batch_size, length)
        graphdef, params = nnx.split(model, nnx.Param)
        fresh, count = self.initial_carry(model, windows.batch_size), _count(windows, tokens)
        losses = [self._read(graphdef, params, batch, fresh)[0] for batch in stream(windows, 0, count)]
        curve: np.ndarray = self._bits_per_byte(1.0, part) * np.mean(jax.device_get(losses), axis=0)
        return curve

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns the figures of the validation part."""
        return self.figures(model, "validation", self.config.lm.validation_tokens)

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports figures of the test part, bits per byte by position with a picture, and a sample of text."""
        figures = self.figures(model, "test", options.tokens)
        curve, trained = self.by_position(model, "test", options.tokens), self.config.lm.length
        title = f"{self.config.model.cell}, test: {figures['bits_per_byte']:.3f} bits per byte"
        plots.bits_per_byte_by_position(curve, trained, title, folder / "bits_per_byte_by_position.png")
        prompt = self.tokenizer.decode(self.tokens["test"][:64])
        (text,) = self.generate(model, [prompt], key=key, **SAMPLE)
        (folder / "sample.txt").write_text(text + "\n", encoding="utf-8")
        places = sorted({2**n - 1 for n in range(20) if 2**n <= len(curve)} | {len(curve) - 1})
        return {
            "part": "test",
            **figures,
            "test_tokens": len(self.tokens["test"]),
            "test_bytes": sum(map(len, self.contents["test"])),
            "corpus": self.corpus.summary(),
            "length": trained,
            "bits_per_byte_by_position": {str(n + 1): float(curve[n]) for n in places},
            "sample_prompt": prompt,
        }

    def generate(  # type: ignore[override]  # names the options that the base class leaves open
        self,
        model: Model,
        prompts: list[str],
        steps: int,
        key: Key[Array, ""],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> list[str]:
        """Returns each prompt with what the model writes after it.

        Raises:
            ConfigError: for an empty prompt or an option out of range.
        """
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        try:
            check_options(steps, **options)
        except ValueError as error:
            raise ConfigError(f"--{error}") from error
        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        if not all(len(ids) for ids in encoded):
            raise ConfigError("--prompt is ''; expected some text for the model to go on from")
        lengths = np.array([len(ids) for ids in encoded], np.int32)
        padded = np.stack([np.pad(ids, (0, lengths.max() - len(ids))) for ids in encoded])
        drawn = generate(model, padded, lengths, steps, key, window=self.config.lm.length, **options)
        whole = [np.concatenate(parts) for parts in zip(encoded, np.asarray(drawn), strict=True)]
        return [self.tokenizer.decode(ids) for ids in whole]


def _count(windows: Windows, tokens: int) -> int:
    """Returns how many windows of a pass hold about `tokens` tokens, at least one."""
    count: int = min(windows.per_pass, max(1, tokens // (windows.batch_size * windows.length)))
    return count


def _by_token(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Returns cross-entropy in nats and whether the likeliest token is right, each (B, T) float32."""
    logits = logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses, (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)


def _sums(logits: Array, targets: Array) -> Sums:
    losses, right = _by_token(logits, targets)
    count = jnp.float32(targets.size)
    return {"loss": jnp.sum(losses), "weight": count, "correct": jnp.sum(right), "count": count, "tokens": count}
