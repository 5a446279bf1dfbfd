"""BLIS's TraceV2 (inference-sim/inference-sim `sim/workload/tracev2.go`), CSV.

Times are microseconds. A prompt is `input_tokens` after a prefix of `prefix_length` that its
`prefix_group` shares, unless the server counted it (`server_input_tokens`). Where the header states
that sessions accumulate, the tokens of a round are those that it adds to the context
(`trace_encode.go`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.source import open_text

BLOCK_SIZE = 16  # vLLM's default: a shared prefix is shared in whole blocks
_NEEDED = {
    "arrival_s": "arrival_time_us",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
}
_OPTIONAL = {"priority": "vllm_priority", "think_time_s": "think_time_us"}
_MOST = 2.0**53  # a double holds whole numbers up to here (IEEE 754)
_ACCUMULATE = re.compile(r"^session_context_growth:\s*[\"']?accumulate", re.MULTILINE)


def _read(path: Path, options: ReadOptions) -> Draft:
    table = options.table(path)
    draft = draft_of(table, _NEEDED, _OPTIONAL, time_unit=options.time_unit or "us")
    trace = table.frame
    _add_timeouts(draft, trace)
    _add_sessions(draft, trace)
    prefix = _numbers(trace, "prefix_length")
    if prefix.any():
        _share_prefixes(draft, trace, prefix, options.block_size or BLOCK_SIZE)
    _set_prompts(draft, trace, prefix)
    answered = draft.frame["output_tokens"] != 0
    draft.frame = draft.frame[answered]
    draft.metadata["rows_dropped_zero_tokens"] = int((~answered).sum())
    return draft


def _numbers(trace: pd.DataFrame, column: str) -> FloatArray:
    """Return an optional column of numbers, 0 where there is none."""
    if column not in trace:
        return np.zeros(len(trace))
    numbers = pd.to_numeric(trace[column], errors="coerce").to_numpy(np.float64)
    return np.where(np.abs(numbers) <= _MOST, numbers, 0.0)


def _add_timeouts(draft: Draft, trace: pd.DataFrame) -> None:
    deadline_us, arrival_us = _numbers(trace, "deadline_us"), _numbers(trace, "arrival_time_us")
    if deadline_us.any():
        draft.frame["timeout_s"] = np.where(
            deadline_us > 0, (deadline_us - arrival_us) / 1e6, np.nan
        )


def _add_sessions(draft: Draft, trace: pd.DataFrame) -> None:
    if "session_id" not in trace or not trace["session_id"].notna().any():
        draft.frame = draft.frame.drop(columns="think_time_s", errors="ignore")
        return
    named = trace["session_id"].astype(object)
    own = pd.Series([("own", place) for place in trace.index], index=trace.index)
    draft.frame["session_id"] = pd.factorize(named.where(named.notna(), own))[0]
    draft.number_turns = True
    if "think_time_s" in draft.frame:  # then the time of the server is not replayed
        first = draft.frame.groupby("session_id")["arrival_s"].transform("min")
        replayed = draft.frame["think_time_s"].notna()
        draft.frame["arrival_s"] = draft.frame["arrival_s"].where(~replayed, first)


def _share_prefixes(draft: Draft, trace: pd.DataFrame, prefix: FloatArray, block_size: int) -> None:
    known: dict[tuple[Any, int], int] = {}
    groups = trace["prefix_group"] if "prefix_group" in trace else pd.Series(None, trace.index)
    draft.frame["hash_ids"] = pd.Series(
        [
            [
                known.setdefault((group, block), len(known))
                for block in range(int(tokens) // block_size)
            ]
            if pd.notna(group)
            else []
            for group, tokens in zip(groups, prefix, strict=True)
        ],
        index=trace.index,
        dtype=object,
    )
    draft.block_size = block_size


def _set_prompts(draft: Draft, trace: pd.DataFrame, prefix: FloatArray) -> None:
    own = pd.to_numeric(trace["input_tokens"], errors="coerce").to_numpy(np.float64) + prefix
    if draft.number_turns and _accumulates(draft):
        own = _grown(draft.frame["session_id"], own, trace)
    served = _numbers(trace, "server_input_tokens")
    prompts = pd.Series(np.where(served > 0, served, own), index=trace.index, dtype=object)
    raw = trace["input_tokens"]  # stays where it is no number, so that the check names it
    draft.frame["input_tokens"] = prompts.where(~np.isnan(own), raw)


def _accumulates(draft: Draft) -> bool:
    """Whether the header beside the file states that a round's tokens are added to its context."""
    path = draft.table.path
    headers = [path.with_suffix(suffix) for suffix in (".yaml", ".yml")]
    for header in headers:
        if header.is_file():
            with open_text(header) as file:
                return bool(_ACCUMULATE.search(file.read()))
    draft.notes.append(
        f"{path.name} has no header {headers[0].name} beside it: the input_tokens of a session's "
        "rounds are taken as whole prompts"
    )
    return False


def _grown(session: pd.Series[int], own: FloatArray, trace: pd.DataFrame) -> FloatArray:
    """Return whole prompts: the context before, its answer, and what the round adds."""
    rounds, outputs = _numbers(trace, "round_index"), _numbers(trace, "output_tokens")
    reset, whole = _numbers(trace, "input_tokens_reset"), own.copy()
    context: dict[int, float] = {}
    for row in np.lexsort((rounds, session)):
        number = int(session.iloc[row])
        grown = context.get(number, 0.0) + own[row]
        whole[row] = reset[row] if reset[row] > 0 else grown
        context[number] = whole[row] + outputs[row]
    return whole


TRACEV2 = Format(
    name="tracev2",
    title="BLIS TraceV2 CSV: microseconds, sessions, shared prefixes",
    container="csv",
    marks=frozenset({*_NEEDED.values(), "round_index"}),
    time_unit="us",
    read=_read,
)
