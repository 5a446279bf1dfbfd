"""Mooncake traces (kvcache-ai/Mooncake, FAST'25 release): milliseconds and ids of 512-token blocks.

They have neither sessions nor parents, and their ids cover prompts only: a prompt hits blocks of
earlier prompts in the prefix cache but not those of earlier answers, which a real server would hit
too. Hits are a lower bound.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.trace import Trace

BLOCK_SIZE = 512  # FAST25-release/README.md: one hash id stands for 512 tokens
_COLUMNS = {
    "arrival_s": "timestamp",
    "input_tokens": "input_length",
    "output_tokens": "output_length",
}


def _read(path: Path, options: ReadOptions) -> Draft:
    unit = options.time_unit or "ms"
    draft = draft_of(
        options.table(path), _COLUMNS, {"hash_ids": "hash_ids"}, time_unit=unit, quantised=True
    )
    draft.whole_blocks = True
    draft.block_size = options.block_size or BLOCK_SIZE if "hash_ids" in draft.frame else None
    times = draft.frame["arrival_s"]
    if options.time_unit is None and times.dtype.kind == "f" and (times % 1 > 0).any():
        draft.notes.append(
            "timestamp has fractions, read as milliseconds; if they are seconds: time_unit "
            "(--time-unit s)"
        )
    return draft


def _write(trace: Trace, file: TextIO) -> None:
    blocks = (
        [()] * len(trace)
        if trace.hash_ids is None
        else _in_mooncake_blocks(trace.hash_ids, trace.block_size or 0)
    )
    rows = zip(
        trace.arrival_s.tolist(),
        trace.input_tokens.tolist(),
        trace.output_tokens.tolist(),
        blocks,
        strict=True,
    )
    for arrival_s, input_tokens, output_tokens, ids in rows:
        record = {
            "timestamp": round(arrival_s * 1e3),  # other readers require whole milliseconds
            "input_length": input_tokens,
            "output_length": output_tokens,
            "hash_ids": ids,
        }
        file.write(json.dumps(record) + "\n")


def _in_mooncake_blocks(
    hash_ids: Sequence[tuple[int, ...]], block_size: int
) -> Sequence[tuple[int, ...]]:
    """Join smaller blocks into blocks of 512 tokens, a new id per distinct run of old ones."""
    if block_size == BLOCK_SIZE:
        return hash_ids
    if BLOCK_SIZE % block_size:
        raise ValueError(
            f"blocks of {block_size} tokens cannot be joined into Mooncake's {BLOCK_SIZE}"
        )
    joined, known = BLOCK_SIZE // block_size, dict[tuple[int, ...], int]()
    runs = ([ids[i : i + joined] for i in range(0, len(ids), joined)] for ids in hash_ids)
    return [tuple(known.setdefault(run, len(known)) for run in row) for row in runs]


MOONCAKE = Format(
    name="mooncake",
    title="Mooncake JSONL: milliseconds, 512-token blocks",
    container="jsonl",
    marks=frozenset(_COLUMNS.values()),
    time_unit="ms",
    read=_read,
    write=_write,
    keeps=("hash_ids", "block_size"),
    tick_s=1e-3,
)
