"""What a language model owes to the carry that its training ended with.

    python benchmarks/carry.py --workdir runs/lm

Bits per byte of the validation part, read from its start by the parameters of the last checkpoint: with nothing carried
into it, as every evaluation begins, and with the carry of the training streams, which older parameters have made.
"""

import argparse

from qlstm_jax.training.evaluate import restore_state


def main():
    """Prints both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", default="runs/lm", help="folder of a run of configs/lm.py")
    parser.add_argument("--tokens", type=int, default=2**18, help="about how many to read, of all streams together")
    args = parser.parse_args()
    config, problem, model, state = restore_state(args.workdir, checkpoint="last")
    if config.problem != "lm" or state.carry is None:
        parser.error(
            f"{args.workdir} is a run of {config.problem}, {config.model.cell}; expected lm and a cell with a carry"
        )
    rows = problem.windows("validation").batch_size
    if rows != config.train.batch_size:
        parser.error(f"validation has text for {rows} streams of {config.train.batch_size}; expected a larger corpus")
    print(f"{config.model.cell}, step {int(state.step)}, lm.restart={config.lm.restart}")
    for name, carry in (("nothing", None), ("the carry of training", state.carry)):
        figures = problem.figures(model, "validation", args.tokens, carry)
        print(f"from {name}: {figures['bits_per_byte']:.3f} bits per byte")


if __name__ == "__main__":
    main()
