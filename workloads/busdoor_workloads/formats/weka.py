"""Agents' sessions of Weka and AgentX (callanjfox/kv-cache-tester `traces/`).

A JSON document per session, in files of their own (give the folder) or one per line: `requests` of
type n or s (t, in, out, hash_ids, api_time, think_time) or subagent, with requests of its own.

Replayed are prompts, answers and think times, not the recorded server time: a call comes
`think_time` after the answer before it, not at its `t`. A subagent is a session of its own that
begins at its recorded time; the agent's next call after it comes as late as recorded. Block ids are
local to a session, and so renumbered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor_workloads.columns import MAX_TOKENS
from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions
from busdoor_workloads.reading.json_table import read_documents
from busdoor_workloads.reading.table import Table
from busdoor_workloads.text import printable

_NAMES = {
    "arrival_s": "t",
    "input_tokens": "in",
    "output_tokens": "out",
    "think_time_s": "think_time",
    "hash_ids": "hash_ids",
    "session_id": "id",
}


def _read(path: Path, options: ReadOptions) -> Draft:
    files = _files(path) if path.is_dir() else [path]
    reader = _Reader(path.name)
    rows = [
        row
        for file in files  # one at a time: the ids of all published sessions are gigabytes of JSON
        for session in read_documents(file, options.max_bytes)
        for row in reader.calls(session)
    ]
    frame = pd.DataFrame(rows, columns=list(_NAMES))
    kept = (frame["input_tokens"] != 0) & (frame["output_tokens"] != 0)
    draft = Draft(
        table=Table(path=path, frame=pd.DataFrame(), record_name="call"),
        frame=frame[kept],
        names=_NAMES,
        number_turns=True,
        block_size=options.block_size or _block_size(reader.block_sizes, path.name),
        metadata={"rows_read": len(rows), "rows_dropped_zero_tokens": int((~kept).sum())},
    )
    draft.notes.append(
        f"{path.name}: {len(reader.block_sizes):,} sessions of calls that come a think time after the answer "
        "before; the recorded server times are not replayed"
    )
    if reader.num_subagents:
        draft.notes.append(
            f"{path.name}: {reader.num_subagents:,} subagents are sessions of their own, which "
            "begin at their recorded times"
        )
    return draft


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if {".json", ".jsonl"} & set(path.suffixes)]


def _block_size(block_sizes: list[Any], name: str) -> int:
    if not block_sizes:
        raise ValueError(f"{name} has no file of a session (.json or .jsonl)")
    sizes, size = set(map(str, block_sizes)), block_sizes[0]
    if len(sizes) > 1 or type(size) is not int or not 1 <= size <= MAX_TOKENS:
        raise ValueError(
            f"{name} has sessions of block_size {', '.join(sorted(sizes))}; it must be one whole "
            "number of 1 or more"
        )
    return size


@dataclass
class _Reader:
    """Calls of sessions as rows: numbers for sessions, subagents and blocks."""

    name: str
    num_subagents: int = 0
    block_sizes: list[Any] = field(default_factory=list)
    _sessions: Iterator[int] = field(default_factory=count)
    _blocks: dict[tuple[Any, int], int] = field(default_factory=dict)

    def calls(self, session: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        where = f"{self.name} session {printable(str(session.get('id')))[:40]}"
        self.block_sizes.append(session.get("block_size"))
        scope = str(session.get("id")) if session.get("hash_id_scope") != "global" else None
        return self._thread(_entries(session, where), 0.0, scope, where)

    def _thread(
        self, entries: list[dict[str, Any]], base_s: float, scope: Any, where: str
    ) -> Iterator[dict[str, Any]]:
        """Return the calls of an agent, which follow one another, and those of its subagents."""
        number, start_s, answered_s = next(self._sessions), 0.0, None
        has_waited = False  # for a subagent, since the last call
        for entry in entries:
            t_s = base_s + _seconds(entry, "t", where)
            if entry.get("type") == "subagent":
                self.num_subagents += 1
                has_waited = True
                inner = _entries(entry, where)
                yield from self._thread(inner, _inner_base(inner, t_s, where), scope, where)
                continue
            start_s = t_s if answered_s is None else start_s
            think_s = 0.0 if answered_s is None else max(0.0, t_s - answered_s)
            if entry.get("think_time") is not None and answered_s is not None and not has_waited:
                think_s = entry["think_time"]
            answered_s, has_waited = t_s + _seconds(entry, "api_time", where, 0.0), False
            yield {
                "session_id": number,
                "arrival_s": start_s,
                "think_time_s": think_s,
                "input_tokens": entry.get("in"),
                "output_tokens": entry.get("out"),
                "hash_ids": self._renumbered(entry.get("hash_ids"), scope),
            }

    def _renumbered(self, ids: Any, scope: Any) -> Any:
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            return ids
        return [self._blocks.setdefault((scope, one), len(self._blocks)) for one in ids]


def _entries(holder: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    entries = holder.get("requests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{where}: requests must be a list of objects")
    return entries


def _inner_base(entries: list[dict[str, Any]], spawned_s: float, where: str) -> float:
    """Return the zero of a subagent's times: in some files its own start, else the session's."""
    return spawned_s if entries and _seconds(entries[0], "t", where) < spawned_s else 0.0


def _seconds(entry: Mapping[str, Any], key: str, where: str, absent: float | None = None) -> float:
    value = entry.get(key)
    if value is None and absent is not None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(
            f"{where}: {key} is {str(value)[:40]}; it must be a time of 0 or later in seconds"
        )
    return float(value)


WEKA = Format(
    name="weka",
    title="Weka/AgentX agents' sessions: JSON, 64-token blocks",
    container="json",
    marks=frozenset({"id", "requests", "block_size"}),
    time_unit=None,
    in_folders=True,
    read=_read,
)
