"""inference-perf's per_request_lifecycle_metrics.json (kubernetes-sigs/inference-perf, `apis/base.py`, `reportgen/`).

An array of requests: start_time, end_time, error and `info`, which has input_tokens, output_tokens
and output_token_times itself or, in later versions, in `response_metrics` with the server's own
`server_usage`. Its times are those of chunks, of which some versions record twice as many as tokens
(references of ours, workloads §4): such gaps are left out. Stages stand in separate files, so that
one file is one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from busdoor.calibration.formats.base import (
    Measured,
    MeasuredFormat,
    at,
    gaps_of,
    left_out,
    objects,
    table_of,
)
from busdoor_workloads.reading.json_table import read_json_array

_REMEDY = "inference-perf writes it with api.streaming: true"


def _read(path: Path, run: int | None) -> Measured:
    frame = read_json_array(path).frame
    requests = objects(frame.to_dict("records"), path.name, "the file")
    answered = [request for request in requests if not isinstance(request.get("error"), dict)]
    rows = [_row(request) for request in answered]
    counted = [row for row in rows if row["output_tokens"]]
    table = table_of(
        [{k: v for k, v in row.items() if k != "times"} for row in counted], path.name, _REMEDY
    )
    tokens = table["output_tokens"].tolist()
    all_times = [row["times"] for row in counted]
    whole = [times for times, most in zip(all_times, tokens, strict=True) if len(times) <= most]
    gaps = [_gaps_s(times) for times in whole]
    notes = left_out(
        path.name,
        {
            "failed": len(requests) - len(answered),
            "without output tokens": len(answered) - len(counted),
        },
    )
    if doubled := len(counted) - len(whole):
        notes.append(
            f"{path.name}: {doubled:,} requests have more chunk times than tokens; the gaps of "
            f"these are left out"
        )
    return Measured(table=table, itls_s=gaps_of(gaps, path.name) if whole else None, notes=notes)


def _row(request: Mapping[str, Any]) -> dict[str, Any]:
    info = request.get("info")
    response = at(info, "response_metrics")
    served = at(response, "server_usage")
    times = _times(at(response, "output_token_times") or at(info, "output_token_times"))
    return {
        "arrival_s": request.get("start_time"),
        # The server's own counts are preferred to those of text that was tokenised again.
        "input_tokens": at(served, "prompt_tokens") or at(info, "input_tokens"),
        "output_tokens": at(served, "completion_tokens")
        or at(response, "output_tokens")
        or at(info, "output_tokens"),
        "first_token_s": times[0] if times else None,
        "finish_s": times[-1] if times else None,
        "times": times,
    }


def _times(values: Any) -> list[float]:
    """Return a request's token times; none if they are no list of numbers."""
    is_list = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    return values if is_list else []


def _gaps_s(times: list[Any]) -> list[Any]:
    return [after - before for before, after in pairwise(times)]


INFERENCE_PERF = MeasuredFormat(
    name="inference-perf",
    title="per_request_lifecycle_metrics.json of inference-perf",
    holds="array",
    marks=(frozenset({"start_time", "end_time", "info"}),),
    read=_read,
)
