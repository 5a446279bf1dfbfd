"""From raw values to numbers: every bad row is found and named by file, line and column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor_workloads.formats.draft import UNITS_PER_SECOND, Draft

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """What a column's values must be, in words and as a test."""

    wanted: str
    good: Callable[[NDArray[Any]], Mask]
    whole: bool = False
    may_miss: bool = False

    def holds(self, values: NDArray[Any], missing: Mask) -> Mask:
        """Tell which values are good."""
        good = self.good(values) & ~np.isnan(values) if values.dtype.kind == "f" else self.good(values)
        if self.whole and values.dtype.kind == "f":
            good &= values == np.floor(values)
        return good | missing if self.may_miss else good & ~missing


def _at_least(least: float) -> Callable[[NDArray[Any]], Mask]:
    return lambda values: np.isfinite(values) & (values >= least)


RULES = {
    "arrival_s": Rule("a time of 0 or later", _at_least(0)),
    "input_tokens": Rule("a whole number of at least 1", _at_least(1), whole=True),
    "output_tokens": Rule("a whole number of at least 1", _at_least(1), whole=True),
    "max_output_tokens": Rule("a whole number of at least 1", _at_least(1), whole=True),
    "priority": Rule("a whole number", np.isfinite, whole=True),
    "session_id": Rule("a whole number", np.isfinite, whole=True),
    "turn": Rule("a whole number of 0 or more", _at_least(0), whole=True),
    "think_time_s": Rule("a time of 0 or more, or empty", lambda values: values >= 0, may_miss=True),
    "timeout_s": Rule("a time of more than 0, or empty", lambda values: values > 0, may_miss=True),
    "block_size": Rule("a whole number of at least 1", _at_least(1), whole=True, may_miss=True),
    "concurrency": Rule("a whole number of at least 1", _at_least(1), whole=True, may_miss=True),
}
_TIMESTAMP = "a timestamp such as 2023-11-16 18:15:46.6805900"
_BLOCKS = "a list of whole numbers"


def checked(draft: Draft, *, skip_bad: bool) -> tuple[pd.DataFrame, int]:
    """Turn a draft's raw values into numbers.

    Parameters
    ----------
    draft : Draft
        What a reader found.
    skip_bad : bool
        Leave bad rows out instead of refusing the file.

    Returns
    -------
    frame : DataFrame
        Columns of numbers (hash_ids of tuples), times in seconds, index as in the draft.
    num_bad : int
        Rows left out.

    Raises
    ------
    ValueError
        The first bad row: file, line, column, value, and what would be right.
    """
    parsed, complaints, bad = {}, [], np.zeros(len(draft.frame), dtype=bool)
    for column in draft.frame:
        parsed[column], good, wanted = _parse(draft, str(column))
        if not good.all():
            complaints.append((int(np.argmin(good)), str(column), wanted))
            bad |= ~good
    if complaints and not skip_bad:
        raise ValueError(_complaint(draft, *min(complaints)))
    frame = pd.DataFrame(parsed, index=draft.frame.index)[~bad]
    return _whole_numbers(frame), int(bad.sum())


def _parse(draft: Draft, column: str) -> tuple[Any, Mask, str]:
    raw = draft.frame[column]
    if column == "hash_ids":
        return *_blocks(raw), _BLOCKS
    missing = raw.isna().to_numpy()
    if column == "arrival_s" and draft.time_unit == "datetime":
        return *_timestamps(raw), _TIMESTAMP
    rule, values = RULES[column], _numbers(raw)
    good = rule.holds(values, missing)
    if column == "max_output_tokens":
        good &= ~(values < _numbers(draft.frame["output_tokens"]))
        return values, good, "a whole number of at least output_tokens"
    if column in ("arrival_s", "think_time_s"):
        values = values / UNITS_PER_SECOND[draft.time_unit] if draft.time_unit != "datetime" else values
    return values, good, rule.wanted


def _numbers(raw: pd.Series[Any]) -> NDArray[Any]:
    if raw.dtype.kind in "iuf":
        return raw.to_numpy()
    if raw.dtype.kind == "O":  # JSON can hold anything; what is neither number nor text is no number
        raw = raw.map(lambda value: value if isinstance(value, int | float | str) else None)
    return pd.to_numeric(raw, errors="coerce").to_numpy(dtype=np.float64)


def _timestamps(raw: pd.Series[Any]) -> tuple[NDArray[Any], Mask]:
    if raw.dtype.kind in "iuf":  # a bare number would be taken for nanoseconds since 1970
        return np.zeros(len(raw)), np.zeros(len(raw), dtype=bool)
    moments = pd.to_datetime(raw, format="ISO8601", utc=True, errors="coerce")
    good = moments.notna().to_numpy()
    elapsed_s = (moments - moments.min()).dt.total_seconds().fillna(0)
    return elapsed_s.to_numpy(dtype=np.float64), good


def _blocks(raw: pd.Series[Any]) -> tuple[list[tuple[int, ...]], Mask]:
    parsed = [_block_ids(value) for value in raw]
    return [ids or () for ids in parsed], np.array([ids is not None for ids in parsed], dtype=bool)


def _block_ids(value: object) -> tuple[int, ...] | None:
    if isinstance(value, list | tuple | np.ndarray):
        ids = value.tolist() if isinstance(value, np.ndarray) else value
        return tuple(ids) if set(map(type, ids)) <= {int} else None
    if isinstance(value, str):
        try:
            return tuple(map(int, value.split()))
        except ValueError:
            return None
    if isinstance(value, int | np.integer):  # a CSV column in which every row has one block
        return (int(value),)
    if isinstance(value, float) and value.is_integer():
        return (int(value),)
    return () if pd.isna(value) else None  # type: ignore[call-overload]


def _complaint(draft: Draft, row: int, column: str, wanted: str) -> str:
    value = draft.frame[column].iloc[row]
    place = draft.table.place(int(draft.frame.index[row]))
    name = draft.names.get(column, column)
    wanted = wanted.replace("output_tokens", draft.names.get("output_tokens", "output_tokens"))
    if not isinstance(value, list | tuple | dict | np.ndarray) and pd.isna(value):
        return f"{place}: {name} is missing; it must be {wanted}"
    return f"{place}: {name} is {_shown(value)}; it must be {wanted}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    whole = [c for c, rule in RULES.items() if rule.whole and not rule.may_miss and c in frame]
    return frame.astype(dict.fromkeys(whole, np.int64))
