"""Whether cells stay finite over very long sequences, at their initial weights, in float32 and bfloat16.

    python benchmarks/stability.py --steps 100000

The sequence is read in pieces, the carry handed on, so that memory does not grow with it. Printed for each cell are the
largest number of its outputs and of its carry after a tenth, half and all of the tokens; and for QL-LSTM's additive
memory m, which nothing forgets, the root mean square of m itself and of what is read of it, s.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from qlstm_jax.cells import gru, lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm

CELLS = {
    "RNN": rnn,
    "LSTM": lstm,
    "GRU": gru,
    "QL-LSTM": ql_lstm,
    "PR-LSTM": pr_lstm,
    "sLSTM": slstm,
    "mLSTM": mlstm,
}
PIECE = 1000


def largest(tree):
    """The largest absolute floating-point number of a pytree; nan if one is there."""
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a.astype(jnp.float32))) for a in leaves]))


def rms(a):
    """Root mean square."""
    return float(jnp.sqrt(jnp.mean(jnp.square(a.astype(jnp.float32)))))


def read(cell, dtype: str, args):
    """Yields (tokens read, largest output so far, carry) after each piece."""
    params = cell.init(jax.random.key(0), args.hidden, args.hidden, dtype=dtype)
    options = {"max_length": args.steps} if cell is pr_lstm else {}
    carry = cell.initial_carry(params, args.batch, **options)

    @jax.jit
    def piece(carry, key):
        xs = jax.random.normal(key, (args.batch, PIECE, args.hidden)).astype(dtype)
        carry, ys = cell.unroll(params, xs, carry=carry)
        return carry, largest(ys)

    most, keys = 0.0, jax.random.split(jax.random.key(1), args.steps // PIECE)
    for number, key in enumerate(keys):
        carry, new = piece(carry, key)
        most = np.maximum(most, float(new))  # keeps a nan
        yield PIECE * (number + 1), most, carry


def main():
    """Reads the flags, measures, prints; exit status 1 if a number is not finite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="tokens, a multiple of 10,000")
    parser.add_argument("--batch", type=int, default=2, help="sequences")
    parser.add_argument("--hidden", type=int, default=64, help="hidden size")
    args = parser.parse_args()
    if args.steps < 10_000 or args.steps % 10_000:
        parser.error(f"--steps is {args.steps}; expected a multiple of 10,000")

    finite, places = True, (args.steps // 10, args.steps // 2, args.steps)
    print(f"batch {args.batch}, hidden size {args.hidden}: largest output / largest number of the carry")
    print(f"{'':<20}" + "".join(f"{f'after {n:,}':>24}" for n in places))
    for name, cell in CELLS.items():
        for dtype in ("float32", "bfloat16"):
            line, memory = [], []
            for tokens, output, carry in read(cell, dtype, args):
                if tokens in places:
                    line.append(f"{output:.3f} / {float(largest(carry)):.3f}")
                    memory.append(None if cell is not ql_lstm else carry.memory)
            finite &= bool(np.isfinite(output)) and bool(np.isfinite(largest(carry)))
            print(f"{f'{name}, {dtype}':<20}" + "".join(f"{text:>24}" for text in line), flush=True)
            if cell is ql_lstm:
                used = [m / jnp.sqrt(1 + jnp.mean(m**2, axis=-1, keepdims=True)) for m in memory]
                texts = [f"{rms(m):.2f} / {rms(s):.3f}" for m, s in zip(memory, used, strict=True)]
                print(f"{'    rms of m / s':<20}" + "".join(f"{text:>24}" for text in texts), flush=True)
    print("all finite" if finite else "NOT FINITE")
    raise SystemExit(not finite)


if __name__ == "__main__":
    main()
