"""Results of `vllm bench serve --save-result --save-detailed`: lengths and send times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.json_table import read_json
from busdoor_workloads.reading.table import Table
from busdoor_workloads.streams import stream
from busdoor_workloads.text import printable

_SHOWN_KEYS = 200  # characters
_LENGTHS = {"input_tokens": "input_lens", "output_tokens": "output_lens"}


def _read(path: Path, options: ReadOptions) -> Draft:
    result = read_json(path, options.run, options.max_bytes)
    if not {*_LENGTHS.values(), "request_throughput"} & set(result):
        has = printable(", ".join(result))[:_SHOWN_KEYS] or "nothing"
        raise ValueError(
            f"{path.name} is a JSON document, but no workload that is known (it has {has}): "
            "neither a result of vLLM or SGLang (input_lens, output_lens), nor agents' sessions "
            "(id, requests, block_size), nor spans (resourceSpans)"
        )
    for key in _LENGTHS.values():
        if not isinstance(result.get(key), list):
            raise ValueError(
                f"{path.name} is a benchmark's result without the list {key}; it has the lengths "
                "when it was run with --save-detailed (vLLM) or --output-details (SGLang)"
            )
    lists = {
        key: result[key]
        for key in (*_LENGTHS.values(), "start_times")
        if isinstance(result.get(key), list)
    }
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{key} {len(values)}" for key, values in lists.items())
        raise ValueError(f"{path.name} has lists of different lengths: {lengths}")
    table = Table(path=path, frame=pd.DataFrame(lists))
    draft = draft_of(table, _LENGTHS, {"arrival_s": "start_times"}, relative=True)
    if "start_times" not in lists:
        _arrivals(draft, result, options.seed)
    failed = draft.frame["output_tokens"] == 0  # the client writes 0 for a request that failed
    draft.frame, draft.metadata["rows_dropped_zero_tokens"] = (
        draft.frame[~failed],
        int(failed.sum()),
    )
    return draft


def _arrivals(draft: Draft, result: Mapping[str, Any], seed: int) -> None:
    """Draw the arrivals of the client's settings: at a rate, of a closed loop, or all at once."""
    rate = _positive(result.get("request_rate"))
    burstiness = _positive(result.get("burstiness")) or 1.0
    users, number = result.get("max_concurrency"), len(draft.frame)
    if rate is not None and np.isfinite(rate):
        draft.frame["arrival_s"] = _drawn(number, rate, burstiness, seed)
        source = (
            f"drawn at the file's request_rate of {rate:g}/s (burstiness {burstiness:g}, "
            f"seed {seed})"
        )
    elif isinstance(users, int) and not isinstance(users, bool) and users > 0:
        draft.frame["arrival_s"], draft.concurrency = 0.0, users
        source = f"those of a closed loop of the file's max_concurrency, {users} users"
    else:
        draft.frame["arrival_s"] = 0.0
        source = "all at 0, as its request_rate is " + ("infinite" if rate else "absent")
    draft.notes.append(f"{draft.table.path.name} has no start_times: arrivals are {source}")


def _drawn(number: int, rate: float, burstiness: float, seed: int) -> FloatArray:
    # As the client does (vllm/benchmarks/serve.py): gaps of a Gamma law of shape `burstiness` and
    # mean 1 / rate.
    gaps_s = stream(seed, "start_times").gamma(burstiness, 1 / (rate * burstiness), number)
    return np.asarray(np.cumsum(gaps_s), dtype=np.float64)


def _positive(value: object) -> float | None:
    if value == "inf":  # the client's spelling of infinity
        return np.inf
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    return None


VLLM_BENCH = Format(
    name="vllm",
    title="vLLM benchmark result JSON",
    container="json",
    marks=frozenset(),
    time_unit=None,
    uses=frozenset({"run"}),
    read=_read,
)
