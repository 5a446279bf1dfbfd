"""Results of `vllm bench serve --save-result --save-detailed`: the lengths that were run, and when they were sent."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from busdoor_workloads.formats.base import Format
from busdoor_workloads.formats.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.formats.table import Table, read_json

_LENGTHS = {"input_tokens": "input_lens", "output_tokens": "output_lens"}


def _read(path: Path, options: ReadOptions) -> Draft:
    result = read_json(path)
    for key in _LENGTHS.values():
        if not isinstance(result.get(key), list):
            raise ValueError(f"{path.name} has no list {key}; a vLLM result has it when run with --save-detailed")
    lists = {key: result[key] for key in (*_LENGTHS.values(), "start_times") if isinstance(result.get(key), list)}
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{key} {len(values)}" for key, values in lists.items())
        raise ValueError(f"{path.name} has lists of different lengths: {lengths}")
    table = Table(path=path, frame=pd.DataFrame(lists))
    draft = draft_of(table, _LENGTHS, {"arrival_s": "start_times"}, relative=True)
    failed = draft.frame["output_tokens"] == 0  # the client writes 0 for a request that failed
    draft.frame, draft.metadata["rows_dropped_zero_tokens"] = draft.frame[~failed], int(failed.sum())
    return draft


VLLM_BENCH = Format(name="vllm", title="vLLM benchmark result JSON", container="json", marks=frozenset(), read=_read)
