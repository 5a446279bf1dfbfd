"""A plain CSV of per-request times: arrival_s, lengths, first_token_s (or ttft_s), finish_s (or e2e_s)."""

from __future__ import annotations

from pathlib import Path

from busdoor.calibration.formats.base import Measured, MeasuredFormat, number_column, numbers_of
from busdoor_workloads.reading.csv_table import read_csv

_COLUMNS = ("arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s")
_LATENCIES = {"first_token_s": "ttft_s", "finish_s": "e2e_s"}


def _read(path: Path, run: int | None) -> Measured:
    table = read_csv(path).frame
    for time, latency in _LATENCIES.items():
        if time not in table and latency in table and "arrival_s" in table:
            arrival, since = (
                number_column(table[column], path.name) for column in ("arrival_s", latency)
            )
            table[time] = arrival + since
    for column in _COLUMNS:
        if column not in table:
            other = _LATENCIES.get(column)
            instead = f" (or {other})" if other else ""
            raise ValueError(
                f"{path.name} has no column {column}{instead}, which a CSV of per-request times has"
            )
    return Measured(table=numbers_of(table[list(_COLUMNS)], path.name))


OWN_CSV = MeasuredFormat(
    name="csv",
    title="CSV of per-request times",
    holds="csv",
    marks=tuple(frozenset({column}) for column in _COLUMNS[:3]),
    read=_read,
)
