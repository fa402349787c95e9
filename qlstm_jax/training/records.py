"""`metrics.jsonl`: one line of figures for each log and each validation of a run."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from qlstm_jax.training.faults import WorkdirError, writing

NAME = "metrics.jsonl"
TIME = "time"  # of a record, in seconds since 1970; the other keys but step and split are figures


def read(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads the records of a run; none where there was none. A last line that a killed run left unfinished is dropped.

    Raises:
        WorkdirError: for any other line that is no record, naming it.
    """
    path = Path(workdir) / NAME
    if not path.exists():
        return []
    *lines, unended = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                records.append(_record(line))
            except ValueError as error:
                raise WorkdirError(
                    f"{path}:{number} is no line of figures ({error}); mend or delete that line, or give another "
                    "--workdir"
                ) from error
    with suppress(ValueError):
        records.append(_record(unended))
    return records


def _record(line: bytes) -> dict[str, Any]:
    """Parses one record.

    Raises:
        ValueError: if it is none.
    """
    record = json.loads(line.decode())
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise ValueError("it has no step")
    if record.get("split") not in ("train", "validation"):
        raise ValueError(f"its split is {record.get('split')!r}; expected train or validation")
    wrong = [name for name, value in record.items() if name != "split" and not isinstance(value, int | float)]
    if wrong:
        raise ValueError(f"{wrong[0]} is {record[wrong[0]]!r}; expected a number")
    return record


def rewrite(workdir: Path, records: list[dict[str, Any]]) -> None:
    """Writes the records anew, whole or not at all.

    Raises:
        WriteError: if they cannot be written.
    """
    path = workdir / NAME
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path):
        unfinished.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        unfinished.replace(path)
