"""Vidur's traces (microsoft/vidur `data/processed_traces`): lengths, arrivals if any."""

from __future__ import annotations

from typing import TextIO

from busdoor_workloads.formats.base import Format, mapped, write_csv
from busdoor_workloads.trace import Trace

_LENGTHS = {"input_tokens": "num_prefill_tokens", "output_tokens": "num_decode_tokens"}


def _write(trace: Trace, file: TextIO) -> None:
    columns = {
        "arrived_at": trace.arrival_s,
        "num_prefill_tokens": trace.input_tokens,
        "num_decode_tokens": trace.output_tokens,
        "num_total_tokens": trace.input_tokens + trace.output_tokens,
        "pd_ratio": trace.input_tokens / trace.output_tokens,
    }
    write_csv(columns, file)


VIDUR = Format(
    name="vidur",
    title="Vidur processed CSV",
    container="csv",
    marks=frozenset(_LENGTHS.values()),
    read=mapped(_LENGTHS, {"arrival_s": "arrived_at"}),
    write=_write,
)
