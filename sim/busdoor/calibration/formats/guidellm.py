"""GuideLLM's benchmarks.json (vllm-project/guidellm 0.3 to 0.8, `schemas/`, class GenerativeRequestStats).

0.3 has flat times (`start_time`, `first_token_time`, `last_token_time`); since 0.4 they stand in
`info.timings` (`request_start`, `first_token_iteration`, `last_token_iteration`). A sweep's
benchmarks are runs of one file. The file lacks the time of every token, and so a distribution of
ITL.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.calibration.formats.base import (
    Measured,
    MeasuredFormat,
    at,
    left_out,
    objects,
    table_of,
)
from busdoor_workloads.reading.json_table import choose, read_documents

_REMEDY = "guidellm writes it for streamed answers to requests of text"
# Our column, and where a request has it: the first place of 0.4 on, the second of 0.3.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "arrival_s": (("info", "timings", "request_start"), ("start_time",)),
    "input_tokens": (("prompt_tokens",), ("input_metrics", "text_tokens")),
    "output_tokens": (("output_tokens",), ("output_metrics", "text_tokens")),
    "first_token_s": (("info", "timings", "first_token_iteration"), ("first_token_time",)),
    "finish_s": (("info", "timings", "last_token_iteration"), ("last_token_time",)),
}


def _read(path: Path, run: int | None) -> Measured:
    [document] = read_documents(path)[:1]
    benchmarks = objects(document.get("benchmarks"), path.name, "benchmarks")
    benchmark = choose(benchmarks, run, path, _about)
    requests = at(benchmark, "requests")
    answered = objects(at(requests, "successful"), path.name, "requests.successful")
    failed = {"failed": at(requests, "errored"), "cut off at the end": at(requests, "incomplete")}
    _refuse_sample(path.name, benchmark, len(answered))
    table = table_of([_row(request) for request in answered], path.name, _REMEDY)
    counts = {why: len(values) if isinstance(values, list) else 0 for why, values in failed.items()}
    return Measured(table=table, notes=left_out(path.name, counts))


def _row(request: Mapping[str, Any]) -> dict[str, Any]:
    return {column: _first(request, places) for column, places in _PLACES.items()}


def _first(request: Mapping[str, Any], places: tuple[tuple[str, ...], ...]) -> Any:
    values = (at(request, *place) for place in places)
    return next((value for value in values if value is not None), None)


def _refuse_sample(name: str, benchmark: Mapping[str, Any], kept: int) -> None:
    """Refuse a file of 0.3 that keeps only a sample: the others were load too."""
    total = at(benchmark, "request_totals", "successful")
    if isinstance(total, int) and total > kept:
        raise ValueError(
            f"{name} keeps {kept} of {total} answered requests; run guidellm without "
            f"--output-sampling"
        )


def _about(benchmark: Mapping[str, Any]) -> str:
    strategy = at(benchmark, "config", "strategy") or at(benchmark, "args", "strategy") or {}
    keys = ("type_", "kind", "rate", "streams", "max_concurrency")
    listed = [
        f"{strategy[key]}" for key in keys if isinstance(strategy, dict) and strategy.get(key)
    ]
    return " ".join(listed) or "no strategy"


GUIDELLM = MeasuredFormat(
    name="guidellm",
    title="benchmarks.json of guidellm",
    holds="json",
    marks=(frozenset({"benchmarks"}),),
    read=_read,
    has_runs=True,
)
