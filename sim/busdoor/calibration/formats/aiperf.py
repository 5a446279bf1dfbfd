"""AIPerf's profile_export.jsonl (ai-dynamo/aiperf 0.13, `common/models/record_models.py`, MetricRecordInfo).

One record per request: `metadata` (request_start_ns by the wall clock, benchmark_phase), `metrics`
(values with their units) and `error`. It lacks the engine's own times: a queue is part of the time
to the first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.calibration.formats.base import (
    Measured,
    MeasuredFormat,
    at,
    gaps_of,
    left_out,
    table_of,
)
from busdoor_workloads.reading.json_table import read_jsonl

_REMEDY = "aiperf writes it with --streaming"
# Units of time that AIPerf writes (`common/enums/metric_enums.py`, MetricTimeUnit).
_PER_SECOND = {"ns": 1e9, "us": 1e6, "ms": 1e3, "sec": 1.0, "s": 1.0}
_PROFILING = "profiling"


def _read(path: Path, run: int | None) -> Measured:
    records = read_jsonl(path).frame.to_dict("records")
    profiled = [row for row in records if at(row, "metadata", "benchmark_phase") == _PROFILING]
    answered = [row for row in profiled if not _failed(row)]
    starts = [_start_ns(row, path.name) for row in answered]
    # Nanoseconds since 1970 have more digits than a double: the first start is time 0.
    rows = [
        _row(row, start - min(starts), path.name)
        for row, start in zip(answered, starts, strict=True)
    ]
    gaps = [_gaps_s(row, path.name) for row in answered]
    return Measured(
        table=table_of(rows, path.name, _REMEDY),
        itls_s=gaps_of(gaps, path.name) if any(gaps) else None,
        notes=left_out(
            path.name,
            {
                "of the warm-up": len(records) - len(profiled),
                "failed": len(profiled) - len(answered),
            },
        ),
    )


def _failed(row: Mapping[Any, Any]) -> bool:
    return isinstance(row.get("error"), dict) or at(row, "metadata", "was_cancelled") is True


def _start_ns(row: Mapping[Any, Any], name: str) -> int:
    start_ns = at(row, "metadata", "request_start_ns")
    if type(start_ns) is not int:
        raise ValueError(
            f"{name}: metadata.request_start_ns is {start_ns!r}; it must be a whole number"
        )
    return start_ns


def _row(row: Mapping[Any, Any], start_ns: int, name: str) -> dict[str, Any]:
    arrival_s = start_ns / 1e9
    first_s = _seconds(row, "time_to_first_token", name)
    whole_s = _seconds(row, "request_latency", name)
    return {
        "arrival_s": arrival_s,
        "input_tokens": at(row, "metrics", "input_sequence_length", "value"),
        "output_tokens": at(row, "metrics", "output_sequence_length", "value"),
        "first_token_s": None if first_s is None else arrival_s + first_s,
        "finish_s": None if whole_s is None else arrival_s + whole_s,
    }


def _seconds(row: Mapping[Any, Any], metric: str, name: str) -> Any:
    value = at(row, "metrics", metric, "value")
    return None if value is None else _scaled(value, _unit(row, metric, name))


def _scaled(value: Any, per_second: float) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value / per_second if is_number else None


def _unit(row: Mapping[Any, Any], metric: str, name: str) -> float:
    unit = at(row, "metrics", metric, "unit")
    if not isinstance(unit, str) or unit not in _PER_SECOND:
        known = ", ".join(_PER_SECOND)
        raise ValueError(f"{name}: {metric} has the unit {unit!r}, which is none of {known}")
    return _PER_SECOND[unit]


def _gaps_s(row: Mapping[Any, Any], name: str) -> list[Any]:
    gaps = at(row, "metrics", "inter_chunk_latency", "value")
    if not isinstance(gaps, list):
        return []
    per_second = _unit(row, "inter_chunk_latency", name)
    return [_scaled(gap, per_second) for gap in gaps]


AIPERF = MeasuredFormat(
    name="aiperf",
    title="profile_export.jsonl of AIPerf",
    holds="jsonl",
    marks=(frozenset({"metadata", "metrics"}),),
    read=_read,
)
