"""Detection of a file's content, and the reader of its table."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from busdoor_workloads.reading.csv_table import read_csv, read_header
from busdoor_workloads.reading.json_table import read_json_array, read_jsonl
from busdoor_workloads.reading.source import MAX_BYTES, PARQUET, magic_of, open_text, settled
from busdoor_workloads.reading.table import Table

# Keys of documents that tools write on one line, which are no rows of a table: results of vLLM,
# SGLang and guidellm, logs of vLLM's engine, agents' sessions, spans.
_DOCUMENTS = (
    {"input_lens"},
    {"request_throughput"},
    {"benchmarks"},
    {"config", "requests", "iterations"},
    {"id", "requests", "block_size"},
    {"resourceSpans"},
)
Holds = Literal["csv", "jsonl", "json", "folder", "array", "parquet"]


def sniff(path: Path, max_bytes: int = MAX_BYTES) -> tuple[Holds, tuple[str, ...]]:
    """Return the content of a file and the columns (or keys) of its first record.

    The content is "csv", "jsonl", "json" (documents), "array" (of JSON objects), "parquet" or
    "folder". There are no columns for a damaged document.
    """
    path = settled(path, max_bytes)
    if path.is_dir():
        return "folder", ()
    if magic_of(path).startswith(PARQUET):
        return "parquet", tuple(map(str, read_parquet(path, max_bytes=max_bytes).frame.columns))
    with open_text(path, max_bytes) as file:
        first = next((line for line in file if line.strip()), "").lstrip()
    if first.startswith("["):
        return "array", tuple(
            read_json_array(path, skip_bad=True, max_bytes=max_bytes).frame.columns
        )
    if not first.startswith("{"):
        return "csv", tuple(read_header(path, max_bytes)[1])
    try:
        keys = tuple(json.loads(first))
    except json.JSONDecodeError:
        return "json", _document_keys(path, max_bytes)
    except (
        ValueError,
        RecursionError,
    ):  # nested too deeply, or too long a number: the reader reports it
        return "jsonl", ()
    is_document = any(marks <= set(keys) for marks in _DOCUMENTS)
    return ("json" if is_document else "jsonl"), keys


def _document_keys(path: Path, max_bytes: int) -> tuple[str, ...]:
    """Return the keys of a file's first JSON document, which has several lines."""
    with open_text(path, max_bytes) as file:
        text = file.read().lstrip()
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):  # the reader reports it
        return ()
    return tuple(document) if isinstance(document, dict) else ()


def read_table(path: Path, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES) -> Table:
    """Read a table from CSV, JSON lines, a JSON array or Parquet.

    Raises ValueError: the file and line of the first malformed record.
    """
    holds, _ = sniff(path, max_bytes)
    if holds not in _READERS:
        raise ValueError(
            f"{path.name} holds no table but a {'folder' if holds == 'folder' else 'JSON document'}"
        )
    return _READERS[holds](path, skip_bad=skip_bad, max_bytes=max_bytes)


def read_parquet(path: Path, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES) -> Table:
    """Read a Parquet table.

    Raises ValueError: the file is damaged or too large, or pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path.name} is a Parquet table, which needs pyarrow: pip install pyarrow"
        )
    import pyarrow.lib
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
        if (num_bytes := sum(group.total_byte_size for group in groups)) > max_bytes:
            raise ValueError(
                f"{path.name} holds {num_bytes:,} bytes, more than max_bytes ({max_bytes:,})"
            )
        # Whole numbers with gaps stay whole numbers.
        return Table(
            path=path, frame=file.read().to_pandas(integer_object_nulls=True), record_name="row"
        )
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} is a damaged Parquet table: {error}") from None


_READERS: Mapping[str, Callable[..., Table]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "array": read_json_array,
    "parquet": read_parquet,
}
