"""Tables as the file has them, with the line of every record so that a bad one can be named."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd

Container = Literal["csv", "jsonl", "json", "folder"]

# What was written as a double must come back as the same double: pandas does so by itself from 3.1 on.
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT_FLOATS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}

# Records parsed at a time: enough to spread a call's overhead, few enough to hold as dictionaries.
_CHUNK_LINES = 20_000
_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file's records under the file's own column names.

    Parameters
    ----------
    path : Path
        The file.
    frame : DataFrame
        One row a record, numbered from 0.
    line : callable
        Maps a record's number to its line in the file (1 first); None where a file has no such lines.
    num_malformed : int
        Records left out because they were no rows at all (only with `skip_bad`).
    record_name : str
        What a record without a line is called.
    """

    path: Path
    frame: pd.DataFrame
    line: Callable[[int], int] | None = None
    num_malformed: int = 0
    record_name: str = "request"

    def place(self, record: int) -> str:
        """Name a record for an error sentence.

        Examples
        --------
        >>> Table(path=Path("data/a.csv"), frame=pd.DataFrame(), line=lambda record: record + 2).place(15)
        'a.csv line 17'
        """
        if self.line is None:
            return f"{self.path.name} {self.record_name} {record}"
        return f"{self.path.name} line {self.line(record)}"


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, compressed or not; what makes it unreadable becomes one sentence.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is absent, is no text, or its compression is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        opener = gzip.open if packed else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start}: {error.reason})") from None


def sniff(path: Path) -> tuple[Container, tuple[str, ...]]:
    """Find out what a file holds and which columns (or keys) its first record has.

    Returns
    -------
    container : str
        "csv", "jsonl", "json" (one document) or "folder".
    columns : tuple of str
        Names in the header, or keys of the first record.
    """
    if path.is_dir():
        return "folder", ()
    with open_text(path) as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise ValueError(f"{path} is empty")
    if not first.lstrip().startswith("{"):
        return "csv", tuple(name.strip() for name in next(csv.reader([first], delimiter=_delimiter(path))))
    try:
        keys = tuple(json.loads(first))
    except json.JSONDecodeError:
        return "json", ()
    is_vllm_result = {"input_lens", "request_throughput"} & set(keys)
    return ("json" if is_vllm_result else "jsonl"), keys


def read_csv(path: Path, *, skip_bad: bool = False) -> Table:
    """Read a CSV file; rows of a wrong width are errors, or are counted and left out.

    Raises
    ------
    ValueError
        The file and line of the first row that is no row.
    """
    try:
        with open_text(path) as file:
            frame = pd.read_csv(
                file, sep=_delimiter(path), skipinitialspace=True, low_memory=False, index_col=False, **EXACT_FLOATS
            )
        return Table(path=path, frame=frame.rename(columns=str.strip), line=lambda record: _csv_line(path, record))
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty") from None
    except pd.errors.ParserError:
        return _read_ragged_csv(path, skip_bad)


def _delimiter(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=_delimiter(path))
        yield from ((reader.line_num, fields) for fields in reader if fields)


def _csv_line(path: Path, record: int) -> int:
    # Record 0 follows the header. Counting again is slow, but happens only when a row is bad.
    return next(line for (line, _), number in zip(_csv_records(path), count(-1), strict=False) if number == record)


def _read_ragged_csv(path: Path, skip_bad: bool) -> Table:
    records = _csv_records(path)
    _, header = next(records)
    rows, lines, num_malformed = [], [], 0
    for line, fields in records:
        if len(fields) <= len(header):
            rows.append(fields + [""] * (len(header) - len(fields)))
            lines.append(line)
        elif skip_bad:
            num_malformed += 1
        else:
            raise ValueError(f"{path.name} line {line}: the row has {len(fields)} fields but the header {len(header)}")
    frame = pd.DataFrame(rows, columns=[name.strip() for name in header]).replace("", None)
    return Table(path=path, frame=frame, line=lines.__getitem__, num_malformed=num_malformed)


def read_jsonl(path: Path, *, skip_bad: bool = False) -> Table:
    """Read one JSON object a line; a line that is none is an error, or is counted and left out.

    Raises
    ------
    ValueError
        The file and line of the first line that is no JSON object.
    """
    columns, lines, num_malformed = _Columns(), [], 0
    for chunk in _chunks(path):
        records = _json_objects([text for _, text in chunk])
        for (line, _), record in zip(chunk, records, strict=True):
            if isinstance(record, dict):
                lines.append(line)
            elif skip_bad:
                num_malformed += 1
            else:
                raise ValueError(f"{path.name} line {line}: {record}")
        columns.add([record for record in records if isinstance(record, dict)])
    return Table(path=path, frame=columns.frame(), line=lines.__getitem__, num_malformed=num_malformed)


def _chunks(path: Path) -> Iterator[list[tuple[int, str]]]:
    with open_text(path) as file:
        numbered = ((line, text) for line, text in enumerate(file, 1) if not text.isspace())
        while chunk := list(islice(numbered, _CHUNK_LINES)):
            yield chunk


def _json_objects(texts: list[str]) -> list[dict[str, Any] | str]:
    """Parse lines; one that is no object becomes the complaint about it."""
    try:  # one call for all lines is several times faster than a call for each
        records = json.loads(f"[{','.join(texts)}]")
    except json.JSONDecodeError:
        records = []
    if len(records) == len(texts) and all(type(record) is dict for record in records):
        return records  # type: ignore[no-any-return]
    return [_json_object(text) for text in texts]


def _json_object(text: str) -> dict[str, Any] | str:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return f"no JSON ({error.msg} at column {error.colno})"
    return record if isinstance(record, dict) else f"{text.strip()[:40]} is no JSON object"


class _Columns:
    """Columns that grow by records which need not all have the same keys."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}
        self._num_rows = 0

    def add(self, records: list[dict[str, Any]]) -> None:
        for key in {key: None for record in records for key in record}:
            self._values.setdefault(key, [None] * self._num_rows)
        for key, values in self._values.items():
            values.extend([record.get(key) for record in records])
        self._num_rows += len(records)

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self._values, index=range(self._num_rows))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON document.

    Raises
    ------
    ValueError
        The file and line where it stops being JSON.
    """
    with open_text(path) as file:
        try:
            document = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name} line {error.lineno}: no JSON ({error.msg})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return document
