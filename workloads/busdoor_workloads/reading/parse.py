"""Numbers from raw values: whole ones never pass through floats; booleans are none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor_workloads.hashes import INT64, as_arrays

Mask = NDArray[np.bool_]

_INT64 = np.iinfo(np.int64)
_INEXACT = 2**53  # from here on a double does not hold every whole number (IEEE 754)
_WHOLE = re.compile(r"\s*[+-]?\d+(\.0*)?\s*")
_DIGITS = 400  # of a number in a text: more than any valid number has


def whole_numbers(raw: pd.Series[Any]) -> tuple[NDArray[np.int64], Mask]:
    """Return a column as whole numbers and a mask of valid ones; beyond int64 means its ends.

    >>> values, good = whole_numbers(pd.Series(["1234567890123456789", 2.5, True, None, 2**64], dtype=object))
    >>> values[0].item(), good
    (1234567890123456789, array([ True, False, False, False, False]))
    """
    kind = raw.dtype.kind if isinstance(raw.dtype, np.dtype) else "O"
    if kind == "i":
        return raw.to_numpy(np.int64), np.ones(len(raw), dtype=bool)
    if kind == "f":
        floats = raw.to_numpy(np.float64)
        good = np.isfinite(floats) & (floats == np.floor(floats)) & (np.abs(floats) < _INEXACT)
        return np.clip(np.nan_to_num(floats), -_INEXACT, _INEXACT).astype(np.int64), good
    numbers = [_whole(value) for value in raw.astype(object)]
    good = np.array(
        [number is not None and _INT64.min <= number <= _INT64.max for number in numbers],
        dtype=bool,
    )
    held = [0 if number is None else min(max(number, _INT64.min), _INT64.max) for number in numbers]
    return np.array(held, dtype=np.int64), good


def _whole(value: object) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, str):
        return (
            int(value.split(".")[0]) if len(value) < _DIGITS and _WHOLE.fullmatch(value) else None
        )
    # np.float64 is one
    if isinstance(value, float) and value.is_integer() and abs(value) < _INEXACT:
        return int(value)
    return None


def numbers(raw: pd.Series[Any]) -> NDArray[Any]:
    """Return a column as int64 if possible, else as floats; anything but a number becomes NaN.

    >>> numbers(pd.Series([1.5, "2", True, [3]], dtype=object))
    array([1.5, 2. , nan, nan])
    """
    kind = raw.dtype.kind if isinstance(raw.dtype, np.dtype) else "O"
    if kind == "i":
        return raw.to_numpy(np.int64)
    if kind in "uf":
        return raw.to_numpy(np.float64)
    return np.array([_float(value) for value in raw.astype(object)], dtype=np.float64)


def _float(value: object) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | str | np.number):
        return np.nan
    try:
        return float(value) if not isinstance(value, str) or "_" not in value else np.nan
    except OverflowError:
        return np.inf
    except ValueError:
        return np.nan


def moments(raw: pd.Series[Any]) -> tuple[NDArray[np.float64], Mask]:
    """Return timestamps with a date as seconds from the earliest, and a mask of the valid ones."""
    # pandas reads a bare number as nanoseconds
    if isinstance(raw.dtype, np.dtype) and raw.dtype.kind in "iufb":
        return np.zeros(len(raw)), np.zeros(len(raw), dtype=bool)
    if raw.dtype == object:  # JSON can hold anything
        raw = raw.where(raw.map(lambda value: isinstance(value, str)))
    parsed = pd.to_datetime(raw, format="ISO8601", utc=True, errors="coerce")
    good = parsed.notna().to_numpy()
    elapsed_s = (parsed - parsed.min()).dt.total_seconds().fillna(0)
    return np.asarray(elapsed_s, dtype=np.float64), good


def are_moments(raw: pd.Series[Any]) -> bool:
    """Whether a column holds datetimes, not text or numbers."""
    return pd.api.types.is_datetime64_any_dtype(raw)


def block_lists(raw: pd.Series[Any]) -> tuple[list[Any], Mask]:
    """Return the ids of each prompt's blocks, in tuples or arrays, and a mask of the valid rows."""
    rows = as_arrays(raw.tolist())
    if set(map(type, rows)) == {np.ndarray} and {row.dtype for row in rows} == {INT64}:
        return rows, np.ones(len(rows), dtype=bool)
    parsed = [_block_ids(value) for value in rows]
    return [ids or () for ids in parsed], np.array([ids is not None for ids in parsed], dtype=bool)


def _block_ids(value: object) -> tuple[int, ...] | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(value) if set(map(type, value)) <= {int} else None
    if isinstance(value, str):
        ids = [_whole(part) for part in value.removeprefix("'").split()]
        return None if None in ids else tuple(ids)  # type: ignore[arg-type]
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return ()
    one = _whole(value)  # a CSV column in which every row has one block
    return None if one is None else (one,)
