"""Workloads of casys-kaist/LLMServingSim `workloads/`: ns; requests or agents' calls.

The token ids of prompts (`input_tok_ids`), where a file has them, become ids of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.table import Table

_COLUMNS = {
    "arrival_s": "arrival_time_ns",
    "input_tokens": "input_toks",
    "output_tokens": "output_toks",
}
_TOKEN_IDS = "input_tok_ids"
BLOCK_SIZE = 16  # vLLM's default, which LLMServingSim takes over
_CALLS = {
    **_COLUMNS,
    "session_id": "session_id",
    "turn": "turn",
    "think_time_s": "tool_duration_ns",
    "hash_ids": _TOKEN_IDS,
}


def _read(path: Path, options: ReadOptions) -> Draft:
    table, unit = options.table(path), options.time_unit or "ns"
    if "sub_requests" not in table.frame:
        draft = draft_of(table, _COLUMNS, {"hash_ids": _TOKEN_IDS}, time_unit=unit)
        return _with_blocks(draft, options)
    records = table.frame.to_dict("records")
    calls = pd.DataFrame(
        [call for record, row in enumerate(records) for call in _calls(record, row)]
    )
    frame = calls.set_index("record").rename(
        columns={theirs: ours for ours, theirs in _CALLS.items()}
    )
    calls_of = Table(path=path, frame=table.frame, line=table.line)
    return _with_blocks(Draft(table=calls_of, frame=frame, names=_CALLS, time_unit=unit), options)


def _with_blocks(draft: Draft, options: ReadOptions) -> Draft:
    """Replace the token ids of prompts by the ids of their blocks, if the file has them."""
    if "hash_ids" not in draft.frame or not draft.frame["hash_ids"].notna().any():
        draft.frame = draft.frame.drop(columns="hash_ids", errors="ignore")
        return draft
    size, known = options.block_size or BLOCK_SIZE, dict[tuple[int, tuple[Any, ...]], int]()
    blocks = [_blocks(tokens, size, known) for tokens in draft.frame["hash_ids"]]
    draft.frame["hash_ids"] = pd.Series(blocks, index=draft.frame.index, dtype=object)
    draft.block_size, draft.whole_blocks = size, True
    return draft


def _blocks(tokens: Any, size: int, known: dict[tuple[int, tuple[Any, ...]], int]) -> Any:
    """Return ids of a prompt's blocks: equal ones for equal tokens after equal tokens.

    >>> known = {}
    >>> _blocks([5, 6, 7, 8, 9], 2, known), _blocks([5, 6, 7, 1], 2, known)
    ([0, 1, 2], [0, 3])
    """
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        return tokens  # the check of the rows names it
    ids, before = [], -1
    for start in range(0, len(tokens), size):
        block = (before, tuple(tokens[start : start + size]))
        before = known.setdefault(block, len(known))
        ids.append(before)
    return ids


def _calls(record: int, row: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    """Return a session's calls; each waits for the tool that the previous call started."""
    subs = row["sub_requests"] if isinstance(row["sub_requests"], list) else [row]
    earliest, tool = row.get("arrival_time_ns"), 0
    for turn, sub in enumerate(subs):
        earliest = earliest + tool if isinstance(earliest, int | float) else None
        yield {
            "record": record,
            "arrival_time_ns": earliest,
            "input_toks": sub.get("input_toks"),
            "output_toks": sub.get("output_toks"),
            _TOKEN_IDS: sub.get(_TOKEN_IDS),
            "session_id": record,
            "turn": turn,
            "tool_duration_ns": tool,
        }
        tool = sub.get("tool_duration_ns") or 0


LLMSERVINGSIM = Format(
    name="llmservingsim",
    title="LLMServingSim JSONL: nanoseconds, agents' sessions",
    container="jsonl",
    marks=frozenset({"arrival_time_ns"}),
    time_unit="ns",
    read=_read,
)
