"""Results of `vllm bench serve` (JSON) and of SGLang's bench_serving (JSONL): lists of requests.

Sources: vllm/benchmarks/serve.py (`--save-result --save-detailed`, start_times since 0.10) and
sgl-project/sglang `bench_serving.py` (`--output-details`, which has no start times). Several
results may be appended to one file. SGLang's lacks the order in which its users sent, and both lack
the engine's own times.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.formats.base import Measured, MeasuredFormat, gaps_of, left_out, table_of
from busdoor.calibration.formats.starts import assumed_starts
from busdoor_workloads.reading.json_table import read_json

_LISTS = ("input_lens", "output_lens", "ttfts", "itls")


def _read_vllm(path: Path, run: int | None) -> Measured:
    return _read(path, run, "vllm bench serve writes it with --save-result --save-detailed")


def _read_sglang(path: Path, run: int | None) -> Measured:
    return _read(path, run, "SGLang's bench_serving writes it with --output-details")


def _read(path: Path, run: int | None, remedy: str) -> Measured:
    result = read_json(path, run)
    lists = _lists(result, path.name, remedy)
    whole = pd.DataFrame(lists)
    # the clients write 0 for a failed request
    table = whole[whole["output_lens"] != 0].reset_index(drop=True)
    notes = left_out(path.name, {"failed": len(whole) - len(table)})
    gaps = gaps_of(lists["itls"], path.name)
    decode_s = table["itls"].map(lambda values: float(sum(values or ())))
    first_s = pd.to_numeric(table["ttfts"], errors="coerce")
    if "start_times" not in table:
        table["start_times"], note = assumed_starts(
            result, (first_s + decode_s).to_numpy(float), path.name
        )
        notes.append(note)
    arrival_s = pd.to_numeric(table["start_times"], errors="coerce")
    columns = {
        "arrival_s": arrival_s,
        "input_tokens": table["input_lens"],
        "output_tokens": table["output_lens"],
        "first_token_s": arrival_s + first_s,
        "finish_s": arrival_s + first_s + decode_s,
    }
    rows = pd.DataFrame(columns).to_dict("records")
    table = table_of(rows, path.name, remedy)
    return Measured(table=table, itls_s=gaps, notes=notes, client=_client(result))


def _client(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return how it sent: at most so many at once, and whether all were due at the start.

    >>> _client({"max_concurrency": 8, "request_rate": "inf"}), _client({"request_rate": 2.0})
    ({'max_in_flight': 8, 'due_at_once': True}, {})
    """
    users = result.get("max_concurrency")
    if not isinstance(users, int) or isinstance(users, bool) or users < 1:
        return {}
    return {"max_in_flight": users, "due_at_once": str(result.get("request_rate")) == "inf"}


def _lists(result: Mapping[str, Any], name: str, remedy: str) -> dict[str, list[Any]]:
    for key in _LISTS:
        if not isinstance(result.get(key), list):
            raise ValueError(f"{name} has no list {key}; {remedy}")
    keys = [*_LISTS, *(key for key in ("start_times",) if isinstance(result.get(key), list))]
    lengths = {key: len(result[key]) for key in keys}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name} has lists of different lengths: {lengths}")
    wrong = np.flatnonzero([not isinstance(gaps, list | None) for gaps in result["itls"]])
    if len(wrong):
        raise ValueError(
            f"{name} request {wrong[0]}: itls is {result['itls'][wrong[0]]!r}; it must be a list"
        )
    return {key: result[key] for key in keys}


VLLM_BENCH = MeasuredFormat(
    name="vllm",
    title="result of vllm bench serve",
    holds="json",
    marks=(frozenset({"input_lens"}), frozenset({"request_throughput"})),
    read=_read_vllm,
    has_runs=True,
)
SGLANG = MeasuredFormat(
    name="sglang",
    title="result of SGLang's bench_serving",
    holds="json",
    marks=(frozenset({"random_range_ratio", "sharegpt_output_len"}),),
    read=_read_sglang,
    has_runs=True,
)
