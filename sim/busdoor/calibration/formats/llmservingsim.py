"""The requests.jsonl of LLMServingSim's `bench run` (casys-kaist/LLMServingSim, `bench/`)."""

from __future__ import annotations

from pathlib import Path

from busdoor.calibration.formats.base import Measured, MeasuredFormat, numbers_of
from busdoor_workloads.reading.json_table import read_jsonl

# A request arrives when the engine has queued it: the clock of all that follows. `arrival_time` is
# of the client and by another clock.
_COLUMNS = {
    "queued_ts": "arrival_s",
    "input_toks": "input_tokens",
    "output_toks": "output_tokens",
    "scheduled_ts": "first_scheduled_s",
    "first_token_ts": "first_token_s",
    "last_token_ts": "finish_s",
}


def _read(path: Path, run: int | None) -> Measured:
    table = read_jsonl(path).frame
    for column in _COLUMNS:
        if column not in table:
            raise ValueError(
                f"{path.name} has no column {column}, which a requests.jsonl of LLMServingSim's "
                f"bench has"
            )
    return Measured(table=numbers_of(table[list(_COLUMNS)].rename(columns=_COLUMNS), path.name))


LLMSERVINGSIM = MeasuredFormat(
    name="llmservingsim",
    title="requests.jsonl of LLMServingSim's bench",
    holds="jsonl",
    marks=(frozenset({"input_toks", "output_toks"}),),
    read=_read,
)
