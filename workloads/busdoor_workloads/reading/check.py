"""Checks of raw values: every bad row is found and named by file, line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.columns import MAX_TOKENS, FloatArray, IntArray
from busdoor_workloads.hashes import fitting_block_size, within_int64
from busdoor_workloads.reading.draft import UNITS_PER_SECOND, Draft
from busdoor_workloads.reading.parse import (
    Mask,
    are_moments,
    block_lists,
    moments,
    numbers,
    whole_numbers,
)
from busdoor_workloads.text import printable, shown

EPOCH_S = 1e9
"""A clock that begins later counts from 1970 (passed in 2001): no log lasts 31 years."""
_LATEST_S = 1e11  # seconds since 1970 in the year 5138: a later time is in another unit


@dataclass(frozen=True)
class Rule:
    """The wanted values of a column, in words and as limits."""

    wanted: str
    least: float
    most: float = np.inf
    beyond: str = ""


_TOKENS = Rule(
    "a whole number of at least 1", 1, MAX_TOKENS, f"a whole number of at most {MAX_TOKENS:,}"
)
_ARRIVAL = Rule(
    "a time of 0 or later",
    0,
    _LATEST_S,
    "a time before the year 5000: give its unit with time_unit (--time-unit)",
)
WHOLE = {
    "input_tokens": _TOKENS,
    "output_tokens": _TOKENS,
    "max_output_tokens": _TOKENS,
    "priority": Rule("a whole number of 64 bits", -np.inf),
    "session_id": Rule("a whole number or a name", -np.inf),
    "turn": Rule("a whole number of 0 or more", 0),
}
SECONDS = {
    "think_time_s": Rule("a time of 0 or more, or empty", 0),
    "timeout_s": Rule("a time of more than 0, or empty", np.nextafter(0, 1)),
}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_AS_DATE = "a number: give its unit with time_unit (--time-unit datetime)"
_TIMESTAMP = "a timestamp such as 2023-11-16 18:15:46.6805900"


@dataclass(frozen=True)
class _Parsed:
    values: Any
    good: Mask
    wanted: str


def checked(draft: Draft, *, skip_bad: bool) -> tuple[pd.DataFrame, int]:
    """Turn a draft's raw values into numbers; return them, and how many bad rows were left out.

    Times are in seconds, hash_ids tuples, the index is the draft's; it gets notes on changes.
    Without `skip_bad` the first bad row raises ValueError: file, line, column, value, and wanted
    value.
    """
    parsed = {
        str(column): _parse(draft, str(column)) for column in draft.frame if column != "hash_ids"
    }
    if "hash_ids" in draft.frame:
        parsed["hash_ids"] = _blocks(draft, parsed["input_tokens"])
    complaints = [
        (int(np.argmin(p.good)), name, p.wanted) for name, p in parsed.items() if not p.good.all()
    ]
    if complaints and not skip_bad:
        raise ValueError(_complaint(draft, *min(complaints)))
    bad = ~np.logical_and.reduce([p.good for p in parsed.values()])
    frame = pd.DataFrame({name: p.values for name, p in parsed.items()}, index=draft.frame.index)
    return frame[~bad], int(bad.sum())


def _parse(draft: Draft, column: str) -> _Parsed:
    raw = draft.frame[column]
    if column == "arrival_s":
        return _arrivals(draft, raw)
    if column in SECONDS:
        return _durations(draft, column, raw)
    if column == "session_id":
        raw = _sessions(draft, raw)
    values, good = whole_numbers(raw)
    parsed = _held(WHOLE[column], values, good)
    if column != "max_output_tokens":
        return parsed
    enough = ~(values < whole_numbers(draft.frame["output_tokens"])[0])
    return _Parsed(values, parsed.good & enough, "a whole number of at least output_tokens")


def _held(rule: Rule, values: IntArray | FloatArray, good: Mask) -> _Parsed:
    good = good & (values >= rule.least) & (values <= rule.most)
    too_much = rule.beyond and not good.all() and rule.most < values[np.argmin(good)] < np.inf
    return _Parsed(values, good, rule.beyond if too_much else rule.wanted)


def _arrivals(draft: Draft, raw: pd.Series[Any]) -> _Parsed:
    if draft.time_unit == "datetime" or are_moments(raw):
        return _Parsed(*moments(raw), _TIMESTAMP)
    values, per_second = numbers(raw), UNITS_PER_SECOND[draft.time_unit]
    parsed = _held(_ARRIVAL, values / per_second, np.isfinite(values))
    if not parsed.good.all() and _DATE.match(str(raw.iloc[int(np.argmin(parsed.good))])):
        return replace(parsed, wanted=_AS_DATE)
    first = values[parsed.good].min() if parsed.good.any() else values.dtype.type(0)
    if since_1970 := first / per_second > EPOCH_S:
        date = np.datetime64(int(first / per_second), "s")
        draft.notes.append(
            f"{_name(draft, 'arrival_s')} counts from 1970: time 0 is the first request's, {date} "
            f"UTC"
        )
    # Subtraction comes before division: doubles of seconds since 1970 would round nanoseconds.
    zero = first if since_1970 or draft.relative else values.dtype.type(0)
    return _Parsed((values - zero) / per_second, parsed.good, parsed.wanted)


def _durations(draft: Draft, column: str, raw: pd.Series[Any]) -> _Parsed:
    values = numbers(raw).astype(np.float64)
    parsed = _held(SECONDS[column], values, ~np.isnan(values))
    per_second = UNITS_PER_SECOND.get(draft.time_unit, 1.0) if column == "think_time_s" else 1.0
    return _Parsed(values / per_second, parsed.good | raw.isna().to_numpy(), parsed.wanted)


def _sessions(draft: Draft, raw: pd.Series[Any]) -> pd.Series[Any]:
    """Number sessions whose ids are names, or numbers of more than 64 bits."""
    _, good = whole_numbers(raw)
    named = raw[~good & raw.notna().to_numpy()].map(
        lambda value: isinstance(value, int | str) and value is not True
    )
    if named.empty or not named.all():
        return raw
    codes, names = pd.factorize(raw.astype(object))
    draft.notes.append(
        f"{_name(draft, 'session_id')} holds names: {len(names):,} sessions, numbered from 0"
    )
    return pd.Series(codes, index=raw.index, dtype=object).where(raw.notna(), None)


def _blocks(draft: Draft, inputs: _Parsed) -> _Parsed:
    ids, good = block_lists(draft.frame["hash_ids"])
    if draft.block_size is None:
        if not good.all():
            return _Parsed(ids, good, "a list of whole numbers")
        name = draft.table.path.name
        raise ValueError(
            f"{name} has hash_ids without the tokens that one stands for: give block_size "
            f"(--block-size)"
        )
    num_ids = np.array([len(row) for row in ids], dtype=np.int64)
    blocks = -(-inputs.values // draft.block_size)
    fits = ~(inputs.good & good) | (num_ids <= blocks) & (
        (num_ids == blocks) | (num_ids == 0) | (not draft.whole_blocks)
    )
    if not fits.all():
        _refuse_other_size(draft, int(np.argmin(fits)), num_ids, inputs.values, inputs.good & good)
    kept = within_int64(ids)
    if kept is not ids:
        draft.notes.append(
            f"{_name(draft, 'hash_ids')} holds ids of more than 64 bits with a sign: numbered "
            f"anew from 0"
        )
    wanted = f"as many whole numbers as the prompt has blocks of {draft.block_size} tokens"
    return _Parsed(
        kept, good & fits, wanted if good[np.argmin(good & fits)] else "a list of whole numbers"
    )


def _refuse_other_size(
    draft: Draft, row: int, num_ids: IntArray, inputs: IntArray, known: Mask
) -> None:
    size = fitting_block_size(num_ids[known], inputs[known])
    if size is None or size == draft.block_size:
        return
    raise ValueError(
        f"{draft.table.place(int(draft.frame.index[row]))}: {_name(draft, 'hash_ids')} has "
        f"{num_ids[row]} ids for {inputs[row]} tokens, which are "
        f"{-(-inputs[row] // draft.block_size)} blocks of {draft.block_size}; every request fits "
        f"blocks of {size} tokens: give block_size = {size} (--block-size {size})"
    )


def _name(draft: Draft, column: str) -> str:
    return printable(draft.names.get(column, column))


def _complaint(draft: Draft, row: int, column: str, wanted: str) -> str:
    value = draft.frame[column].iloc[row]
    place = draft.table.place(int(draft.frame.index[row]))
    value = value.tolist() if isinstance(value, np.ndarray) else value
    wanted = wanted.replace("output_tokens", _name(draft, "output_tokens"))
    if not isinstance(value, list | tuple | dict | np.ndarray) and pd.isna(value):
        return f"{place}: {_name(draft, column)} is missing; it must be {wanted}"
    return f"{place}: {_name(draft, column)} is {shown(value)}; it must be {wanted}"
