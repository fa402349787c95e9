"""PR-LSTM against a faithful re-creation of the official formulation, in one process.

    python benchmarks/pr_lstm.py                     # hidden 256, batch 128, length 40, Adam
    python benchmarks/pr_lstm.py --memory            # what `remat` saves, from the compiled programs
    python benchmarks/pr_lstm.py --stream 1000000    # tokens through one jitted function

The official formulation computes every prefix by `jax.lax.associative_scan` with concatenated children, and compiles
once for each length that it evaluates. Ours computes the last state alone where one is wanted, never concatenates, and
evaluates many lengths with one program. Rounds of the two are interleaved; printed are medians, the range between the
quartiles, and ratios. The evaluation's peer is measured on every --peer_stride-th length and scaled up.
"""

import argparse
import resource
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.cells import pr_lstm
from qlstm_jax.training import config as configs
from qlstm_jax.training.step import TrainState, device_step, initial_state, make_optimizer


def official_cell(kernel, bias, children):
    """The n-ary LSTM cell over (h, c) of the children."""
    z = jnp.concatenate([h for h, _ in children], axis=-1) @ kernel + bias
    i, g, o, *forget = jnp.split(z, 3 + len(children), axis=-1)
    c = jax.nn.sigmoid(i) * jnp.tanh(g)
    for f, (_, child) in zip(forget, children, strict=True):
        c = c + jax.nn.sigmoid(f) * child
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def official_logits(params, xs, answers: int):
    """The last `answers` outputs of a tape: every prefix, then relu and a linear map."""
    cell = pr_lstm.Params(**params["layer"]["cells"][0])

    def combine(left, right):
        state = official_cell(cell.merge_kernel, cell.merge_bias, [left, right])
        for kernel, bias in zip(cell.refine_kernel, cell.refine_bias, strict=True):
            state = official_cell(kernel, bias, [state])
        return state

    i, g, o = jnp.split(xs @ cell.leaf_kernel + cell.leaf_bias, 3, axis=-1)
    c = jax.nn.sigmoid(i) * jnp.tanh(g)
    h, _ = jax.lax.associative_scan(combine, (jax.nn.sigmoid(o) * jnp.tanh(c), c), axis=1)
    return jax.nn.relu(h[:, -answers:]) @ params["head"]["kernel"] + params["head"]["bias"]


def official_step(task, optimizer, state, batch):
    """One step of the official formulation: (state, loss)."""

    def loss(params):
        xs, _ = task.frame(batch)
        return task.loss(official_logits(params, xs, batch.targets.shape[1]), batch)

    value, grads = jax.value_and_grad(loss)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, state.key), value


def setup(args, **changes):
    """(config, problem, graphdef, optimizer, state) of a new run."""
    config = configs.default()
    config.update_from_flattened_dict(
        {
            "problem": "formal",
            "formal.task": args.task,
            "model.hidden_size": args.hidden,
            "train.batch_size": args.batch,
            **changes,
        }
    )
    problem = problems.make(config, None)
    model, optimizer = problem.model(nnx.Rngs(0)), make_optimizer(config.train)
    return config, problem, nnx.graphdef(model), optimizer, initial_state(model, optimizer, jax.random.key(0))


def seconds(function, *args) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def line(name: str, times: list[float]) -> float:
    """Prints median and quartiles in ms; returns the median."""
    median, (first, _, third) = statistics.median(times), statistics.quantiles(times, n=4)
    print(f"{name:<44}{1e3 * median:>10.1f} ms   quartiles {1e3 * first:.1f} .. {1e3 * third:.1f}", flush=True)
    return median


def train_step(args):
    """The train step of both, interleaved, from the same state on the same batch."""
    _, problem, graphdef, optimizer, state = setup(args)
    batch = problem.task.sample(jax.random.key(1), args.batch, args.length)
    ours = jax.jit(lambda s, b: device_step(problem, graphdef, optimizer, args.batch, s, b, axis=None))
    peer = jax.jit(partial(official_step, problem.task, optimizer))
    (mine, metrics), (theirs, loss) = ours(state, batch), peer(state, batch)
    apart = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), mine.params, theirs.params)))
    print(f"loss {metrics['loss']:.6f} and {loss:.6f}; parameters after the step differ by at most {apart:.1e}")
    times = {"ours": [], "official": []}
    for _ in range(args.rounds):
        times["official"].append(seconds(peer, state, batch))
        times["ours"].append(seconds(ours, state, batch))
    official, mine = line("official formulation, train step", times["official"]), line("ours", times["ours"])
    print(f"ours takes {mine / official:.2f} of the official formulation's time")


def evaluation(args):
    """Lengths 41..500: ours whole, programs compiled included; the peer on a sample of the lengths."""
    _, problem, graphdef, _, state = setup(args)
    lengths = range(41, 501)
    model = nnx.merge(graphdef, state.params)
    mine = seconds(lambda: problem.accuracy_by_length(model, jax.random.key(0), lengths, args.sequences))
    times = []
    for length in lengths[:: args.peer_stride]:

        def evaluate(params, key, length=length):
            batch = problem.task.sample(key, args.sequences, length)
            xs, _ = problem.task.frame(batch)
            return problem.task.accuracy(official_logits(params, xs, batch.targets.shape[1]), batch)

        times.append(seconds(jax.jit(evaluate), state.params, jax.random.key(length)))
    theirs = statistics.mean(times) * len(lengths)
    print(f"evaluating lengths 41..500, {args.sequences} each: ours {mine:.1f} s, programs compiled included")
    line("one compile a length, each", times)
    print(
        f"all {len(lengths)} lengths so, scaled up from {len(times)}: {theirs:.0f} s; ours {theirs / mine:.1f} x faster"
    )


def memory(args):
    """Temporary memory of the gradient's program, with and without remat."""
    for length in (args.length, 1024):
        sizes = {}
        for remat in (False, True):
            _, problem, graphdef, optimizer, state = setup(args, **{"model.pr_lstm.remat": remat})
            batch = jax.eval_shape(
                partial(problem.task.sample, batch_size=args.batch, length=length), jax.random.key(0)
            )
            step = jax.jit(
                lambda s, b, problem=problem, graphdef=graphdef, optimizer=optimizer: device_step(
                    problem, graphdef, optimizer, args.batch, s, b, axis=None
                )
            )
            compiled = step.lower(state, batch).compile()
            sizes[remat] = compiled.memory_analysis().temp_size_in_bytes
        print(
            f"length {length}, batch {args.batch}, hidden {args.hidden}: {sizes[False] / 2**20:,.0f} MiB, with remat "
            f"{sizes[True] / 2**20:,.0f} MiB ({sizes[False] / sizes[True]:.2f} x less)"
        )


def stream(args):
    """Tokens through one jitted function of 10,000, at one size of carry; halfway the stream is saved and read back."""
    params, piece = pr_lstm.init(jax.random.key(0), 4, args.hidden), 10_000
    carry = pr_lstm.initial_carry(params, 1, max_length=args.stream)

    @partial(jax.jit, donate_argnums=0)
    def run(carry, key):
        def one(carry, x):
            carry, y = pr_lstm.step(params, carry, x)
            return carry, jnp.sum(y)

        carry, sums = jax.lax.scan(one, carry, jax.random.normal(key, (piece, 1, 4)))
        return carry, jnp.sum(sums)

    carry, _ = run(carry, jax.random.key(0))
    before, start, pieces = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        time.perf_counter(),
        args.stream // piece,
    )
    for number in range(1, pieces):
        if number == pieces // 2:
            leaves, shape = jax.tree.flatten(carry)
            carry = jax.tree.unflatten(shape, [jnp.asarray(np.array(leaf)) for leaf in leaves])
        carry, total = run(carry, jax.random.key(number))
    assert np.isfinite(total) and int(carry.count[0]) == pieces * piece
    took, grown = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry))
    print(f"{pieces * piece:,} tokens, hidden {args.hidden}: {1e6 * took / ((pieces - 1) * piece):.1f} us a token")
    print(f"carry {size:,} bytes; the process grew by {grown / 1024:.1f} MiB after the first {piece:,} tokens")


def main():
    """Reads the flags and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="parity_check", help="a single-output formal language")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--sequences", type=int, default=64, help="of each length evaluated")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--peer_stride", type=int, default=20)
    parser.add_argument("--memory", action="store_true", help="only measure what remat saves")
    parser.add_argument("--stream", type=int, default=0, metavar="TOKENS", help="only stream, 20,000 tokens or more")
    args = parser.parse_args()
    print(f"hidden {args.hidden}, batch {args.batch}, length {args.length}, on {jax.devices()[0].device_kind}")
    if args.memory:
        memory(args)
    elif args.stream:
        stream(args)
    else:
        train_step(args)
        evaluation(args)


if __name__ == "__main__":
    main()
