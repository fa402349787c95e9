"""Times training on texts of many lengths, in packed rows and in buckets of padded ones, interleaved in one process.

    python benchmarks/packing.py --cell ql_lstm lstm

Lengths are drawn as those of the IMDB reviews are distributed (log-normal, median 174 tokens, cut at 512). Each line
gives the share of padding of an epoch and the tokens of text per second of forward and backward passes, padding not
counted: medians over rounds, with the range of their ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax.data.batching import Batches, TextBatch, bucket_boundaries
from qlstm_jax.data.packing import PackedBatch, PackedBatches
from qlstm_jax.models import Classifier
from qlstm_jax.models.layers import build_layer
from qlstm_jax.training import config as configs

MEDIAN, SIGMA, LONGEST = 174, 0.6, 512
VOCABULARY = 20_000


def draw_texts(count: int) -> list[np.ndarray]:
    """Texts of random tokens."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(MEDIAN), SIGMA, count)), 10, LONGEST).astype(int)
    return [rng.integers(1, VOCABULARY, n).astype(np.int32) for n in lengths]


def make_model(cell: str, hidden_size: int, pooling: str) -> Classifier:
    """A classifier of two classes."""
    section = configs.default().model
    section.cell, section.hidden_size = cell, hidden_size
    layer = build_layer(section, hidden_size, rngs=nnx.Rngs(0))
    return Classifier(VOCABULARY, 2, layer, embedding_size=hidden_size, pooling=pooling, rngs=nnx.Rngs(1))


def gradient_of(model: Classifier) -> Callable[[TextBatch | PackedBatch], object]:
    """A function that runs the forward and the backward pass of a batch."""
    graph, params = nnx.split(model, nnx.Param)

    def loss(params: nnx.State, batch: TextBatch | PackedBatch) -> jax.Array:
        model = nnx.merge(graph, params)
        if isinstance(batch, PackedBatch):
            masks = {"seq_lengths": batch.lengths, "resets": batch.resets}
            logits = model.packed(batch.ids, max_sequences=batch.labels.shape[1], **masks)
        else:
            logits = model(batch.ids, seq_lengths=batch.lengths)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.labels[..., None], axis=-1)[..., 0]
        return -jnp.sum(chosen * batch.weights)

    run = jax.jit(jax.grad(loss))
    return lambda batch: jax.block_until_ready(run(params, batch))


def speeds(run: Callable[[TextBatch | PackedBatch], object], sides: dict[str, list], rounds: int) -> dict[str, list]:
    """Tokens of text per second of each side in each round."""
    for batches in sides.values():
        for batch in batches:
            run(batch)
    found: dict[str, list] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, batches in sides.items():
            start = time.perf_counter()
            for batch in batches:
                run(batch)
            tokens = sum(int(batch.lengths.sum()) for batch in batches)
            found[name].append(tokens / (time.perf_counter() - start))
    return found


def main() -> None:
    """Prints a line for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", default=["ql_lstm", "lstm"])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--pooling", default="mean_max")
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=64, help="texts of a bucket's batch")
    parser.add_argument("--buckets", type=int, default=4)
    parser.add_argument("--row-length", type=int, default=1_024)
    parser.add_argument("--rows", type=int, help="of a packed batch; default as many as hold the texts of a bucket's")
    parser.add_argument("--batches", type=int, default=12, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    texts = draw_texts(args.texts)
    labels, lengths = np.zeros(len(texts), int), [len(ids) for ids in texts]
    boundaries = bucket_boundaries(lengths, max_length=LONGEST, num_buckets=args.buckets)
    buckets = Batches(texts, labels, batch_size=args.batch, buckets=boundaries, seed=0)
    rows = args.rows or max(1, round(args.batch * float(np.mean(lengths)) / args.row_length))
    packed = PackedBatches(texts, labels, batch_size=rows, max_length=LONGEST, row_length=args.row_length, seed=0)
    print(f"{len(texts)} texts of {np.mean(lengths):.0f} tokens; {rows} packed rows of {args.row_length} a batch")
    for name, source in (("buckets", buckets), ("packed", packed)):
        print(f"{name}: {100 * source.padding_fraction(0):.1f} % padding in an epoch")
    sides = {
        name: [source.batch(number) for number in range(args.batches)]
        for name, source in (("buckets", buckets), ("packed", packed))
    }
    for cell in args.cell:
        found = speeds(gradient_of(make_model(cell, args.hidden, args.pooling)), sides, args.rounds)
        ratios = sorted(p / b for p, b in zip(found["packed"], found["buckets"], strict=True))
        medians = {name: statistics.median(values) for name, values in found.items()}
        print(
            f"{cell}: buckets {medians['buckets']:,.0f}, packed {medians['packed']:,.0f} tokens/s, packed "
            f"x{medians['packed'] / medians['buckets']:.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
