"""Traces of splitwise-sim (Mutinifni/splitwise-sim `traces/`)."""

from __future__ import annotations

from typing import TextIO

import numpy as np

from busdoor_workloads.formats.base import Format, mapped, write_csv
from busdoor_workloads.trace import Trace

_COLUMNS = {
    "arrival_s": "arrival_timestamp",
    "input_tokens": "prompt_size",
    "output_tokens": "token_size",
}
_LLM_INFERENCE = 2  # its generate_trace.py: request_type 2 is LLM inference


def _write(trace: Trace, file: TextIO) -> None:
    columns = {
        "request_id": np.arange(len(trace)),
        "request_type": _LLM_INFERENCE,
        "application_id": 0,
        "arrival_timestamp": trace.arrival_s,
        "batch_size": 1,
        "prompt_size": trace.input_tokens,
        "token_size": trace.output_tokens,
    }
    write_csv(columns, file)


SPLITWISE = Format(
    name="splitwise",
    title="splitwise-sim CSV",
    container="csv",
    marks=frozenset(_COLUMNS.values()),
    read=mapped(_COLUMNS),
    write=_write,
)
