"""The rows of Parquet files, and of the Arrow files of a Hugging Face dataset on disk, read by pyarrow."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlstm_jax.data.rows import DataError, Refused, Row
from qlstm_jax.data.tables import Columns, find_column

NEEDED = 'needs pyarrow, which is not installed; run: pip install "qlstm_jax[parquet]"'
ROWS = 1024  # read at a time


def arrow_rows(path: Path, columns: Columns) -> Iterator[Row | Refused]:
    """Yields the rows of a .parquet file, or of an .arrow file in either form; `path`:n is row n, from 1.

    A label may be a string, a number, a category, or the number of a class whose name a Hugging Face dataset keeps; -1
    is a label that is missing there.

    Raises:
      DataError: if pyarrow is missing, for a damaged file, or a column that is missing or of another type.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise DataError(f"{path} {NEEDED}") from error
    with contextlib.ExitStack() as stack:
        try:
            schema, batches = _open(path, columns, stack)
            places = [_place(path, schema, option, name) for option, name in columns.items()]
            classes = [_class_names(path, schema, name) for name in columns.values()]
            number = 0
            for batch in batches:
                for values in zip(*(_values(batch, schema.names[place]) for place in places), strict=True):
                    number += 1
                    yield _row(values, classes, f"{path}:{number}")
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} cannot be read as {path.suffix} ({reason}); is it damaged?") from error


def _open(path: Path, columns: Columns, stack: contextlib.ExitStack) -> tuple[Any, Iterator[Any]]:
    """Returns the schema of a file and its record batches."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    if path.suffix.lower() == ".parquet":
        file = stack.enter_context(pyarrow.parquet.ParquetFile(path))
        schema = file.schema_arrow
        wanted = [name for name in columns.values() if name in schema.names]
        return schema, file.iter_batches(batch_size=ROWS, columns=wanted)
    source = stack.enter_context(pyarrow.OSFile(str(path)))
    with path.open("rb") as start:
        is_file_form = start.read(6) == b"ARROW1"
    if is_file_form:
        reader = stack.enter_context(pyarrow.ipc.open_file(source))
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    stream = stack.enter_context(pyarrow.ipc.open_stream(source))
    return stream.schema, iter(stream)


def _place(path: Path, schema: Any, option: str, name: str) -> int:
    """Returns which column it is; its type must be one that is read."""
    import pyarrow.types as kinds

    place = find_column(path, schema.names, name, option)
    kind = schema.types[place]
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind) or kinds.is_null(kind)
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)
    if not (text or (number and option != "text_column")):
        expected = "strings" if option == "text_column" else "strings or numbers"
        raise DataError(f"{path}: the column {name!r} holds {kind}; name one of {expected} with {option}=...")
    return place


def _class_names(path: Path, schema: Any, name: str) -> list[str] | None:
    """Returns the names of a column's classes, where the file is of a Hugging Face dataset and has them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = about.get("info", {}).get("features", {}).get(name, {})
        return list(feature["names"]) if feature.get("_type") == "ClassLabel" else None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its metadata 'huggingface' is damaged ({error}); save the dataset anew") from error


def _values(batch: Any, name: str) -> list[Any]:
    """Returns the values of a column; strings whose bytes are no UTF-8 become lone surrogates, as in text files."""
    import pyarrow

    column = batch.column(batch.schema.names.index(name))
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
        return list(column.to_pylist())
    contents = column.cast(pyarrow.large_binary()).to_pylist()
    return [None if value is None else value.decode(errors="surrogateescape") for value in contents]


def _row(values: tuple[Any, ...], classes: list[list[str] | None], where: str) -> Row | Refused:
    found: list[str | None] = []
    for value, names in zip(values, classes, strict=True):
        if value is None or (isinstance(value, float) and math.isnan(value)) or (names is not None and value == -1):
            found.append(None)
        elif names is None:
            found.append(str(value))
        elif isinstance(value, int) and 0 <= value < len(names):
            found.append(names[value])
        else:
            return Refused("a class without a name", where, f"its number is {value} of {len(names)} classes")
    return Row(tuple(found), where)
