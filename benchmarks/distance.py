"""How far a gradient reaches, and how fast a forget gate lets go: tables and a picture, untrained or of a trained run.

    python benchmarks/distance.py --steps 4096
    python benchmarks/distance.py --run runs/recall_ql_lstm --run runs/recall_lstm     # cells of trained recall runs

The inputs are standard normal, those of a trained run its own embedded tokens. Measured for each cell, in float32:

    gradient   ‖∂(w · y_T) / ∂x_{T−d}‖ for a random unit w, mean over the batch, relative to d = 0
    decay      exp(Σ_{t > T−d} mean log f_t), the share of c_{T−d} that its forget gates leave in c_T, where the cell
               has a c whose next value depends on it element by element: LSTM, QL-LSTM

The first of QL-LSTM holds two ways: through c, which decays, and through the block memory, which does not.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from qlstm_jax.cells import gru, lstm, mlstm, pr_lstm, ql_lstm, slstm
from qlstm_jax.training.evaluate import restore

UNTRAINED = {
    "QL-LSTM": (ql_lstm, {}),
    "QL-LSTM without skip": (ql_lstm, {"skip": False}),
    "LSTM": (lstm, {}),
    "GRU": (gru, {}),
    "PR-LSTM": (pr_lstm, {}),
    "sLSTM": (slstm, {}),
    "mLSTM": (mlstm, {}),
}
FORGETS = (lstm, ql_lstm)


def gradients(cell, params, xs, key):
    """(T,) the norm of what reaches x_{T−d} from the last output, by d."""

    def last(xs):
        return pr_lstm.reduce(params, xs).h if cell is pr_lstm else cell.unroll(params, xs)[1][:, -1]

    def grad(xs):
        w = jax.random.normal(key, (jax.eval_shape(last, xs).shape[-1],))
        return jax.grad(lambda xs: jnp.sum(last(xs) * (w / jnp.linalg.norm(w))[None]))(xs)

    return jnp.mean(jnp.linalg.norm(jax.jit(grad)(xs), axis=-1), axis=0)[::-1]


def decay(cell, params, xs):
    """(T,) the share of c_{T−d} that is left in c_T, by d, geometric mean over the channels."""

    def token(carry, x):
        new, pull = jax.vjp(lambda c: cell.step(params, carry._replace(c=c), x)[0].c, carry.c)
        (forget,) = pull(jnp.ones_like(new))
        return cell.step(params, carry, x)[0], jnp.mean(jnp.log(forget))

    start = cell.initial_carry(params, xs.shape[0])
    logs = jax.jit(lambda xs: jax.lax.scan(token, start, jnp.swapaxes(xs, 0, 1))[1])(xs)
    return jnp.exp(jnp.concatenate([jnp.zeros(1), jnp.cumsum(logs[::-1])[:-1]]))


def trained(folder: str, steps: int, batch: int, key):
    """(name, cell, params, xs) of a run of task recall with one layer."""
    config, problem, model, step = restore(folder)
    if config.problem != "recall" or config.model.num_layers != 1 or config.model.bidirectional:
        raise SystemExit(f"{folder} is a run of {config.problem}; expected recall by one layer that reads forward")
    ids = problem.task.sample(key, batch, steps - 1).ids
    (module,) = model.layer.cells
    return f"{config.model.cell}, {step} steps", module.functions, module.params, model.embed(ids)


def contestants(args):
    """name to (cell, params, xs)."""
    key = jax.random.key(0)
    if args.run:
        return {n: rest for n, *rest in (trained(folder, args.steps, args.batch, key) for folder in args.run)}
    xs = jax.random.normal(key, (args.batch, args.steps, args.hidden))
    return {n: (c, c.init(key, args.hidden, args.hidden, **options), xs) for n, (c, options) in UNTRAINED.items()}


def main():
    """Reads the flags, measures, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4096, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=4, help="sequences")
    parser.add_argument("--hidden", type=int, default=64, help="hidden size of untrained cells")
    parser.add_argument("--run", action="append", help="folder of a trained recall run; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("distance.png"), help="the picture")
    args = parser.parse_args()

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharex=True)
    shown = [d for d in (0, 1, 16, 64, 256, 1024, 4096, 16384) if d < args.steps]
    print(f"{'':<24}" + "".join(f"{f'd = {d}':>12}" for d in shown))
    for name, (cell, params, xs) in contestants(args).items():
        lines = {"gradient": gradients(cell, params, xs, jax.random.key(1))}
        lines["gradient"] = lines["gradient"] / lines["gradient"][0]
        if cell in FORGETS:
            lines["decay"] = decay(cell, params, xs)
        for axes, (what, values) in zip(panels, lines.items(), strict=False):
            values = np.asarray(values)
            print(f"{f'{name}, {what}':<24.24}" + "".join(f"{values[d]:>12.1e}" for d in shown))
            axes.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-30), linewidth=1, label=name)
    panels[0].set(ylabel="gradient, relative to d = 0", title="what reaches an input from the last output")
    panels[1].set(ylabel="share of c that is left", title="decay of c by its forget gates")
    for axes in panels:
        axes.set(xlabel="distance d + 1 (tokens)", xscale="log", yscale="log", ylim=(1e-16, 10))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(args.out, dpi=140)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
