"""Kills runs and damages checkpoints at random, and says whether anything was lost.

    python scripts/battery.py kills --seed 0 --count 100         kills of three kinds of run, against undisturbed ones
    python scripts/battery.py checkpoints --seed 0 --count 1000  flipped, cut, zeroed and deleted files

The same seed draws the same moments and places; when a kill falls depends on the machine besides. The exit code is 0 if
nothing was lost. docs/reliability.md has what was measured.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tensorboardX.proto.event_pb2 import Event

from qlstm_jax.training import config as configs
from qlstm_jax.training import records
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.faults import WorkdirError
from qlstm_jax.training.freezing import name_of
from qlstm_jax.training.loop import train

# What a record says of the clock; the rest is the same in every run of a config.
OF_TIME = ("time", "steps_per_second", "tokens_per_second")
KINDS = ("synthetic", "text", "lm")
SETTINGS: dict[str, dict[str, Any]] = {
    "synthetic": {"problem": "recall", "recall.length": 4, "recall.num_classes": 3, "recall.num_noise": 3},
    "text": {"problem": "text", "text.max_length": 8, "text.num_buckets": 1, "model.dropout": 0.3},
    "lm": {"problem": "lm", "lm.length": 4, "lm.validation": 0.1, "lm.test": 0.1, "train.average_decay": 0.5},
}


def config_of(kind: str, folder: Path) -> ConfigDict:
    """A run of few steps that saves, validates and logs all the time; its data are made in `folder`."""
    config = configs.default()
    settings = {
        "model.cell": "lstm",
        "model.hidden_size": 8,
        "model.embedding_size": 8,
        "train.batch_size": 4,
        "train.steps": 24,
        "train.log_every": 1,
        "train.eval_every": 3,
        "train.checkpoint_every": 2,
        "train.learning_rate": 0.03,
        "train.select": "best",
        "train.num_devices": 1,
    }
    config.update_from_flattened_dict(settings | SETTINGS[kind])
    rng = random.Random(0)
    if kind == "text":
        words = [("good", "fine lovely"), ("bad", "awful dull")]
        rows = [f"{rng.choice(b.split())} film {n} {rng.random():.3f}\t{a}" for n in range(40) for a, b in words]
        (folder / "texts.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
        config.text.path, config.text.validation, config.text.test = str(folder / "texts.tsv"), 0.2, 0.2
    if kind == "lm":
        (folder / "corpus.txt").write_text("".join(rng.choices("abcdefgh \n", k=600)))
        config.lm.path = str(folder / "corpus.txt")
    return config


def child(kind: str, folder: Path, workdir: Path) -> None:
    """A process: trains, or goes on."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with (workdir.parent / f"{workdir.name}.log").open("w") as sys.stdout:
        train(config_of(kind, folder), workdir)


def start(kind: str, folder: Path, workdir: Path) -> Any:
    """A new process of `child`, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.battery", "__main__"])
    process = context.Process(target=child, args=(kind, folder, workdir))
    process.start()
    return process


def finish(kind: str, folder: Path, workdir: Path) -> float:
    """Trains to the end; the seconds from the first figures on."""
    process = start(kind, folder, workdir)
    _wait(process, lambda: _has_figures(workdir))
    began = time.perf_counter()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run in {workdir} ended with {process.exitcode}: {_log(workdir)}")
    return time.perf_counter() - began


def _log(workdir: Path) -> str:
    path = workdir.parent / f"{workdir.name}.log"
    return path.read_text()[-2000:] if path.exists() else ""


def _has_figures(workdir: Path) -> bool:
    path = workdir / records.NAME
    return path.exists() and path.stat().st_size > 0


def _saves(workdir: Path) -> set[str]:
    """The checkpoints that are being written."""
    return {str(p) for name in ("checkpoints", "best") for p in (workdir / name).glob("*orbax-checkpoint-tmp*")}


def _wait(process: Any, until: Callable[[], bool]) -> bool:
    """Whether a condition came before the process ended."""
    while process.is_alive():
        if until():
            return True
        time.sleep(0.0005)
    return False


def kill_once(kind: str, folder: Path, workdir: Path, rng: random.Random, seconds: float) -> str:
    """Starts a run or goes on with it, and kills it: "in a save", "elsewhere", or "done" where it came to its end.

    Args:
        kind: of the run.
        folder: of its data.
        workdir: of the run.
        rng: draws the moment: any time from the start on, or soon after a save has begun.
        seconds: that a whole run takes from its first figures on.
    """
    process, mode = start(kind, folder, workdir), rng.choice(["starting", "running", "saving", "saving"])
    alive = True
    if mode == "starting":
        time.sleep(rng.uniform(0, 2.0))
    elif mode == "running":
        alive = _wait(process, lambda: _has_figures(workdir))
        time.sleep(rng.uniform(0, seconds))
    else:
        known = _saves(workdir)
        for _ in range(rng.randint(1, 6)):
            alive = _wait(process, lambda: bool(_saves(workdir) - known))
            alive = alive and _wait(process, lambda: not (_saves(workdir) - known))
        alive = alive and _wait(process, lambda: bool(_saves(workdir) - known))
        time.sleep(rng.uniform(0, 0.03))
    process.kill()
    process.join()
    if process.exitcode == 0:
        return "done"
    if process.exitcode != -9:
        raise RuntimeError(f"the run in {workdir} ended with {process.exitcode}: {_log(workdir)}")
    return "in a save" if alive and _saves(workdir) else "elsewhere"


def outcome(workdir: Path) -> dict[str, Any]:
    """All that a run leaves, but for the clock: parameters and the rest of the state, best, figures, TensorBoard."""
    checkpoints = Checkpoints(workdir, read_only=True)
    found: dict[str, Any] = {}
    for best in (False, True):
        contents = checkpoints.contents(best=best)
        if contents is None:
            raise RuntimeError(f"{workdir} has no checkpoint")
        leaves = jax.tree_util.tree_leaves_with_path(contents[0])
        name = "best" if best else "latest"
        found[name] = {"step": contents[1]} | {name_of(p): np.asarray(a).tolist() for p, a in leaves}
        folder = workdir / ("best" if best else "checkpoints")
        found[f"steps of {name}"] = sorted(p.name for p in folder.iterdir())
    found["figures of best"] = json.loads(next((workdir / "best").glob("*/metrics/metrics")).read_text())
    found["metrics.jsonl"] = [{k: v for k, v in r.items() if k not in OF_TIME} for r in records.read(workdir)]
    found["TensorBoard"] = sorted(p for p in points(workdir / "tensorboard") if p[0].split("/")[1] not in OF_TIME)
    found["other files"] = sorted(p.name for p in workdir.iterdir())
    return found


def points(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of each scalar in the event files."""
    found = []
    for path in folder.iterdir():
        content, place = path.read_bytes(), 0
        while place < len(content):  # a record: its length, a checksum, the event, a checksum
            (size,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            place += size + 16
    return found


def kills(count: int, seed: int, folder: Path, kinds: tuple[str, ...] = KINDS) -> tuple[Counter[str], list[str]]:
    """How many kills fell where, and what differs from an undisturbed run; `count` kills, evenly over the kinds."""
    rng, fell, lost = random.Random(seed), Counter[str](), []
    for place, kind in enumerate(kinds):
        seconds = finish(kind, folder, folder / f"{kind}_undisturbed")
        expected, done, runs = outcome(folder / f"{kind}_undisturbed"), 0, 0
        wanted = count * (place + 1) // len(kinds) - count * place // len(kinds)
        while done < wanted:
            workdir, runs = folder / f"{kind}_{runs}", runs + 1
            ended = False
            while done < wanted and not ended:
                where = kill_once(kind, folder, workdir, rng, seconds)
                ended = where == "done"
                if not ended:
                    done += 1
                    fell[f"{kind}, {where}"] += 1
            finish(kind, folder, workdir)
            found = outcome(workdir)
            lost += [f"{workdir.name}: {name} differs" for name in expected if found[name] != expected[name]]
        fell[f"{kind}, runs compared"] = runs
    return fell, lost


def damage(folder: Path, rng: random.Random) -> str:
    """Damages one to three files below a folder, or deletes a folder in it; what was done, in a word."""
    kind = rng.choice(["flipped", "flipped", "cut", "zeroed", "deleted", "folder deleted"])
    if kind == "folder deleted":
        shutil.rmtree(rng.choice(sorted(p for p in [folder, *folder.rglob("*")] if p.is_dir())))
        return kind
    for path in rng.sample(sorted(p for p in folder.rglob("*") if p.is_file()), rng.randint(1, 3)):
        content = bytearray(path.read_bytes())
        if kind == "flipped" and content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            content = content[: rng.randrange(len(content) or 1)]
        elif kind == "zeroed":
            content = bytearray(len(content))
        if kind == "deleted":
            path.unlink()
        else:
            path.write_bytes(content)
    return kind


def checkpoints(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """What came of damaged checkpoints by the kind of damage, and those of which numbers came that were never saved."""
    train(config_of("lm", folder), folder / "whole")
    whole = Checkpoints(folder / "whole", read_only=True)
    saved = {step: _read(folder / "whole", "checkpoints", step) for step in whole.latest.all_steps()}
    saved_best, newest = _read(folder / "whole", "best", whole.best.latest_step()), max(saved)
    rng, outcomes, lost = random.Random(seed), Counter[str](), []
    for number in range(count):
        run = folder / "damaged_run"
        shutil.rmtree(run, ignore_errors=True)
        for name in ("checkpoints", "best"):
            shutil.copytree(folder / "whole" / name, run / name)
        target = rng.choice(["newest", "newest", "all", "best"])
        places = {"newest": [newest], "all": sorted(saved), "best": []}[target]
        kinds = [damage(run / "checkpoints" / str(step), rng) for step in places] or [damage(_only(run / "best"), rng)]
        try:
            found = Checkpoints(run, read_only=True).contents(best=target == "best")
        except WorkdirError as error:
            what = "refused in one line" if "\n" not in str(error) else "REFUSED IN MANY LINES"
        except Exception as error:
            what = f"RAISED {type(error).__name__}"
        else:
            # A folder that is gone as a whole is not damaged: it was never there.
            what = "none there" if found is None else _compare(found, saved_best if target == "best" else saved, newest)
        outcomes[f"{target}, {kinds[0]}: {what}"] += 1
        if what.isupper() or what.startswith(("RAISED", "OTHER", "REFUSED IN")):
            lost.append(f"number {number}: {target}, {kinds}: {what}")
    return outcomes, lost


def _only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def _read(workdir: Path, name: str, step: int) -> dict[str, Any]:
    found = Checkpoints(workdir, read_only=True).contents(best=name == "best") if name == "best" else None
    if found is None:
        found = _one(workdir, step)
    return _flat(found[0])


def _one(workdir: Path, step: int) -> tuple[dict[str, Any], int]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(workdir / "checkpoints" / str(step), Path(folder) / "checkpoints" / str(step))
        found = Checkpoints(Path(folder), read_only=True).contents()
    if found is None:
        raise RuntimeError(f"{workdir} has no step {step}")
    return found


def _flat(parts: dict[str, Any]) -> dict[str, Any]:
    return {name_of(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(parts)}


def _compare(found: tuple[dict[str, Any], int], saved: dict[Any, Any], newest: int) -> str:
    """Whether what was read is what was saved."""
    parts, step = _flat(found[0]), found[1]
    expected = saved.get(step, saved)
    same = parts.keys() == expected.keys() and all(np.array_equal(parts[k], expected[k]) for k in parts)
    if not same:
        return "OTHER NUMBERS"
    return "the one before" if step in saved and step != newest else "identical"


def main() -> int:
    """Runs one of the batteries; returns the exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("battery", choices=["kills", "checkpoints"])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=100)
    args = p.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts, lost = {"kills": kills, "checkpoints": checkpoints}[args.battery](args.count, args.seed, Path(folder))
    for name, number in sorted(counts.items()):
        print(f"{number:6}  {name}")
    print("\n".join(lost) if lost else "nothing was lost", f"({time.perf_counter() - began:.0f} s)")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
