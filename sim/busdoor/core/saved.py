"""What is read back from a folder: tables, JSON, or a sentence of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from busdoor.core.json import shown
from busdoor_workloads.reading.table import EXACT_FLOATS
from busdoor_workloads.text import neutral_cell, plain_cell

REPAIR = "the folder was changed or cut off; run the command that wrote it again"
# by key, "?" after one that may be missing or null; float takes any number, and null
Keys = Mapping[str, type]
_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def check_keys(table: Any, where: str, keys: Keys) -> None:
    """Raise ValueError if a table of JSON lacks a key, or has something else in its place.

    >>> check_keys({"policy": -5.5}, "meta.json", {"policy": str})
    Traceback (most recent call last):
    ValueError: meta.json: policy is -5.5, not a text; the folder was changed or cut off; run the command ... again
    """
    if not isinstance(table, dict):
        raise ValueError(f"{where} is {shown(table)}, not an object; {REPAIR}")
    for name, kind in keys.items():
        key = name.removesuffix("?")
        value = table.get(key)
        if key != name and value is None:
            continue
        if key not in table:
            raise ValueError(f"{where} has no {key}, which is {_WORDS[kind]}; {REPAIR}")
        if not _is(value, kind):
            raise ValueError(f"{where}: {key} is {shown(value)}, not {_WORDS[kind]}; {REPAIR}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def write_csv(table: pd.DataFrame, file: Path, index: bool = True) -> None:
    """Write a table, no text of which a spreadsheet takes for a formula."""
    _with_texts(table, neutral_cell).to_csv(file, index=index)


def read_csv(file: Path, **options: Any) -> pd.DataFrame:
    """Read a table exactly, as `write_csv` was given it; ValueError if it is none."""
    return _with_texts(
        _read(file, lambda: pd.read_csv(file, **EXACT_FLOATS, **options)), plain_cell
    )


def _with_texts(table: pd.DataFrame, change: Callable[[object], object]) -> pd.DataFrame:
    """Return a table whose texts are changed, those of its index too.

    >>> table = pd.DataFrame({"label": ["=1+1", None], "gain": [-1.0, 2.0]}, index=pd.Index(["@a", "b"], name="policy"))
    >>> _with_texts(_with_texts(table, neutral_cell), plain_cell).equals(table)
    True
    >>> print(_with_texts(table, neutral_cell).to_csv().splitlines()[1])
    '@a,'=1+1,-1.0
    """
    texts = [column for column in table if not is_numeric_dtype(table[column])]
    changed = table.assign(
        **{str(column): table[column].map(change, na_action="ignore") for column in texts}
    )
    if not is_numeric_dtype(table.index):
        rows, names = table.index.to_frame(index=False).map(change), table.index.names
        changed.index = (
            pd.MultiIndex.from_frame(rows)
            if len(names) > 1
            else pd.Index(rows.iloc[:, 0], name=names[0])
        )
    return changed


def write_table(table: pd.DataFrame, stem: Path, csv: bool = False) -> None:
    """Write a table as Parquet where pyarrow is installed, else (or with `csv`) as CSV."""
    if csv or not find_spec("pyarrow"):
        write_csv(table, stem.with_name(f"{stem.name}.csv"), index=False)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Times hardly repeat: a dictionary of them takes half of the time, and no byte is won.
    repeated = [str(column) for column in table if table[column].dtype.kind != "f"]
    # A column's memory that is shared and strided is copied by one thread as fast as by two.
    columns = pa.Table.from_pandas(table, preserve_index=False, nthreads=1)
    file = stem.with_name(f"{stem.name}.parquet")
    # a group of rows is held in memory until it is whole
    pq.write_table(columns, file, row_group_size=2**17, use_dictionary=repeated)


def read_table(stem: Path) -> pd.DataFrame:
    """Read a table that is there as Parquet or as CSV.

    Raises ValueError if there is none, it cannot be read, or it needs pyarrow, which is not
    installed.
    """
    parquet, csv = stem.with_name(f"{stem.name}.parquet"), stem.with_name(f"{stem.name}.csv")
    if parquet.exists() and csv.exists():
        raise ValueError(
            f"{stem.parent} has both {parquet.name} and {csv.name}, of two studies; {REPAIR}"
        )
    if csv.exists():
        return read_csv(csv)
    if not parquet.exists():
        raise ValueError(
            f"{stem.parent} holds no table {stem.name!r}; the result is incomplete: {REPAIR}"
        )
    if not find_spec("pyarrow"):
        raise ValueError(f"reading {parquet} needs pyarrow: pip install pyarrow")
    return _read(parquet, lambda: pd.read_parquet(parquet))


def _read(file: Path, read: Any) -> pd.DataFrame:
    try:
        table: pd.DataFrame = read()
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is no table ({str(error).splitlines()[0]}); {REPAIR}") from error
    return table


def check_columns(
    table: pd.DataFrame, file: Path | str, numbers: Iterable[str], texts: Collection[str] = ()
) -> pd.DataFrame:
    """Return a table if it has these columns, and numbers in those that are to have them.

    Raises ValueError: one sentence that names the file, the column, and the row and value where it
    matters.

    >>> check_columns(pd.DataFrame({"slot": [1, "x"]}), "stays.csv", ["slot"])
    Traceback (most recent call last):
    ValueError: stays.csv, row 2: slot is 'x', not a number; the folder was changed or cut off; ...
    """
    wanted = [*numbers, *texts]
    for column in wanted:
        if column not in table:
            raise ValueError(f"{file} has no column {column}; {REPAIR}")
    for column in wanted if len(table) else ():
        is_text = column in texts
        row = _wrong_row(table[column], is_text)
        if row is not None:
            value, kind = shown(table[column].iloc[row]), _WORDS[str if is_text else float]
            raise ValueError(f"{file}, row {row + 1}: {column} is {value}, not {kind}; {REPAIR}")
    return table


def _wrong_row(values: pd.Series[Any], is_text: bool) -> int | None:
    """Return the first row that is no text, or no number; None where there is none."""
    if is_text:
        right = values.map(lambda value: isinstance(value, str))
    elif is_numeric_dtype(values) and not is_bool_dtype(values):
        return None
    else:
        right = values.map(lambda value: not isinstance(value, str | bool))
    return None if right.all() else int(right.to_numpy().argmin())


def check_rows(table: pd.DataFrame, file: Path | str, expected: Any, told_by: str) -> None:
    """Raise ValueError if a table has not as many rows as another file says."""
    if isinstance(expected, int) and len(table) != expected:
        raise ValueError(
            f"{file} has {len(table):,} rows, but {told_by} says {expected:,}; {REPAIR}"
        )


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what fails on a folder's content, though readable, into a sentence."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        raise ValueError(f"{folder} does not hold together ({what}); {REPAIR}") from error
