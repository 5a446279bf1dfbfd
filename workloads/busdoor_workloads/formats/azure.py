"""Azure LLM inference traces of 2023 and 2024 (Azure/AzurePublicDataset, CC-BY-4.0)."""

from __future__ import annotations

from typing import TextIO

import numpy as np
import pandas as pd

from busdoor_workloads.formats.base import Format, mapped, write_csv
from busdoor_workloads.trace import Trace

_COLUMNS = {
    "arrival_s": "TIMESTAMP",
    "input_tokens": "ContextTokens",
    "output_tokens": "GeneratedTokens",
}
# The files have dates, traces do not: a written file starts on the day on which the 2023 traces
# were recorded.
_DAY_ZERO = np.datetime64("2023-11-16T00:00:00", "ns")
_TICK_NS = 100  # the 2023 files' seven fractional digits


def _write(trace: Trace, file: TextIO) -> None:
    ticks = np.round(trace.arrival_s * (1e9 / _TICK_NS)).astype(np.int64)
    moments = pd.Series(_DAY_ZERO + (ticks * _TICK_NS).astype("timedelta64[ns]"))
    seconds = moments.dt.strftime("%Y-%m-%d %H:%M:%S")
    fraction = pd.Series(ticks % (10**9 // _TICK_NS)).astype(str).str.zfill(7)
    write_csv(
        {
            "TIMESTAMP": seconds + "." + fraction,
            "ContextTokens": trace.input_tokens,
            "GeneratedTokens": trace.output_tokens,
        },
        file,
    )


AZURE = Format(
    name="azure",
    title="Azure LLM inference traces 2023 and 2024",
    container="csv",
    marks=frozenset(_COLUMNS.values()),
    time_unit="datetime",
    read=mapped(_COLUMNS, time_unit="datetime", relative=True),
    write=_write,
    tick_s=_TICK_NS * 1e-9,
)
