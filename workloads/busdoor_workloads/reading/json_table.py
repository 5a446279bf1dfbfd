"""Tables of JSON objects, one per line or all in one array; and whole documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.hashes import as_arrays
from busdoor_workloads.reading.source import MAX_BYTES, open_text
from busdoor_workloads.reading.table import Table
from busdoor_workloads.text import printable

# Records parsed at a time: enough to spread a call's overhead, few enough to hold as dictionaries.
_CHUNK_LINES = 20_000
_BREAKS_OFF = (ValueError, RecursionError)


def read_jsonl(path: Path, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES) -> Table:
    """Read one JSON object per line; any other line is an error, or is counted and left out.

    Raises ValueError: the file and line of the first line that is not a JSON object.
    """
    columns, num_malformed = _Columns(), 0
    lines: list[int] = []
    for places, texts in _chunks(path, max_bytes):
        records = _objects(texts)
        good = [isinstance(record, dict) for record in records]
        if not all(good) and not skip_bad:
            wrong = good.index(False)
            raise ValueError(f"{path.name} line {places[wrong]}: {records[wrong]}")
        num_malformed += len(good) - sum(good)
        lines.extend(compress(places, good))
        columns.add([record for record in records if isinstance(record, dict)])
    return Table(
        path=path, frame=columns.frame(), line=lines.__getitem__, num_malformed=num_malformed
    )


def read_json_array(path: Path, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES) -> Table:
    """Read a file of one array of JSON objects; other elements are errors, or counted.

    Raises ValueError: the file, and the first element that is not a JSON object.
    """
    with open_text(path, max_bytes) as file:
        elements = _loaded(file.read())
    if not isinstance(elements, list):
        raise ValueError(f"{path.name} begins as a JSON array: {elements}")
    wrong = next(
        (place for place, element in enumerate(elements) if not isinstance(element, dict)), None
    )
    if wrong is not None and not skip_bad:
        raise ValueError(
            f"{path.name} request {wrong}: {_cut(json.dumps(elements[wrong]))} is no JSON object"
        )
    records = [element for element in elements if isinstance(element, dict)]
    columns = _Columns()
    columns.add(records)
    return Table(path=path, frame=columns.frame(), num_malformed=len(elements) - len(records))


def read_json(path: Path, run: int | None = None, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read one JSON document, or document `run` (1 first) of a file to which several were appended.

    Raises ValueError: the file and line of the first JSON error; or the number of documents to
    choose from.
    """
    return choose(read_documents(path, max_bytes), run, path, _about)


def read_documents(path: Path, max_bytes: int = MAX_BYTES) -> list[dict[str, Any]]:
    """Read all JSON documents of a file, one after another, on lines of their own or not.

    Raises ValueError: the file and line of the first JSON error; or there is no document, or one
    that is no object.
    """
    with open_text(path, max_bytes) as file:
        documents = list(_documents(file.read(), path))
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ValueError(f"{path.name} holds no JSON object")
    return documents


def choose(
    results: Sequence[dict[str, Any]],
    run: int | None,
    path: Path,
    about: Callable[[Mapping[str, Any]], str],
) -> dict[str, Any]:
    """Return result `run` of a file (1 first); without a number there may be only one.

    Raises ValueError: the results to choose from, each with what `about` returns for it.
    """
    if not results:
        raise ValueError(f"{path.name} holds no result")
    if (run is None and len(results) > 1) or (run is not None and not 1 <= run <= len(results)):
        listed = "; ".join(f"{place} ({about(result)})" for place, result in enumerate(results, 1))
        raise ValueError(
            f"{path.name} holds {len(results)} results: {listed}; choose one with run (--run 1)"
        )
    return results[(run or 1) - 1]


def _about(document: Mapping[str, Any]) -> str:
    listed = {
        key: document[key]
        for key in ("date", "model_id", "num_prompts", "request_rate")
        if key in document
    }
    return (
        printable(", ".join(f"{key} {str(value)[:40]}" for key, value in listed.items()))
        or "no date"
    )


def _documents(text: str, path: Path) -> Iterator[Any]:
    decoder, place = json.JSONDecoder(object_pairs_hook=_unique), 0
    while (place := len(text) - len(text[place:].lstrip())) < len(text):
        try:
            document, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name} line {error.lineno}: no JSON ({error.msg})") from None
        except _BREAKS_OFF as error:
            raise ValueError(f"{path.name}: {_reason(error)}") from None
        yield document


def _chunks(path: Path, max_bytes: int) -> Iterator[tuple[list[int], list[str]]]:
    """Yield lines that are not blank, some thousand at a time, and their numbers."""
    num_lines = 0
    with open_text(path, max_bytes) as file:
        while texts := list(islice(file, _CHUNK_LINES)):
            told = [not text.isspace() for text in texts]
            places = range(num_lines + 1, num_lines + len(texts) + 1)
            num_lines += len(texts)
            yield list(compress(places, told)), list(compress(texts, told))


def _objects(texts: list[str]) -> list[dict[str, Any] | str]:
    """Parse lines; return an error message for each line that is not an object."""
    whole = ",".join(texts)
    try:  # one call for all lines is several times faster than a call for each
        records = json.loads(f"[{whole}]")
        if not _once(whole, records):
            records = json.loads(f"[{whole}]", object_pairs_hook=_unique)
    except _BREAKS_OFF:
        records = []
    if len(records) == len(texts) and all(type(record) is dict for record in records):
        return records  # type: ignore[no-any-return]
    return [_object(text) for text in texts]


def _once(whole: str, records: list[Any]) -> bool:
    """Whether no record has a key twice: no key occurs more often than records with it."""
    objects = [record for record in records if type(record) is dict]
    keys = set().union(*objects)
    if sum(map(len, objects)) == len(keys) * len(objects):
        times = dict.fromkeys(keys, len(objects))
    else:
        times = Counter(key for record in objects for key in record)
    return all(
        whole.count(json.dumps(key, ensure_ascii=False)) <= number for key, number in times.items()
    )


def _object(text: str) -> dict[str, Any] | str:
    record = _loaded(text)
    if isinstance(record, str) and not text.lstrip().startswith('"'):
        return record
    return record if isinstance(record, dict) else f"{_cut(text)} is no JSON object"


def _loaded(text: str) -> Any:
    """Parse a text; return the reason if it is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _BREAKS_OFF as error:
        return _reason(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {_cut(twice)!r} stands twice; keep one")
    return record


class _TwiceError(ValueError):
    """A key is twice in an object."""


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON ({error.msg} at column {error.colno})"
    if isinstance(error, RecursionError):
        return "its JSON is nested deeper than can be read; a request is one flat object"
    if isinstance(error, _TwiceError):
        return str(error)
    return "it has a number of more digits than can be read (4,300); a request has no such number"


def _cut(text: str) -> str:
    return printable(text.strip()[:40])


class _Columns:
    """Columns that grow by records, which may have different keys."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}
        self._num_rows = 0

    def add(self, records: list[dict[str, Any]]) -> None:
        for key in {key: None for record in records for key in record}:
            self._values.setdefault(key, [None] * self._num_rows)
        for key, values in self._values.items():
            more = [record.get(key) for record in records]
            values.extend(as_arrays(more) if key == "hash_ids" else more)
        self._num_rows += len(records)

    def frame(self) -> pd.DataFrame:
        columns = {key: _column(values) for key, values in self._values.items()}
        return pd.DataFrame(columns, index=range(self._num_rows))


def _column(values: list[Any]) -> Any:
    """Return values as pandas takes them fastest, or as they are where it is to choose the type."""
    types = set(map(type, values))
    if types in ({int}, {float}):
        array = np.array(values)
        # of another type where a whole number needs more than 64 bits
        return array if array.dtype == (np.int64 if types == {int} else np.float64) else values
    # pandas converts whole numbers beside None to floats, which are not exact.
    return pd.Series(values, dtype=object) if {list, np.ndarray, type(None)} & types else values
