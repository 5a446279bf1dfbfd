"""BurstGPT (HPMLL/BurstGPT, CC-BY-4.0), all versions: columns by name; v3 inserts some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from busdoor_workloads.formats.base import Format
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of
from busdoor_workloads.reading.table import Table

_COLUMNS = {
    "arrival_s": "Timestamp",
    "input_tokens": "Request tokens",
    "output_tokens": "Response tokens",
}


def _read(path: Path, options: ReadOptions) -> Draft:
    table = options.table(path)
    draft = draft_of(table, _COLUMNS, {"session_id": "Session ID"}, relative=True)
    draft.time_unit = options.time_unit or "s"
    if options.model is not None:
        draft.frame = draft.frame[_of_model(table, options.model)]
        draft.metadata["model"] = options.model
    # A failed request has no tokens and is no work for a server.
    failed = (draft.frame[["input_tokens", "output_tokens"]] == 0).any(axis=1)
    draft.metadata["rows_dropped_zero_tokens"] = int(failed.sum())
    draft.frame = draft.frame[~failed].copy()
    if "session_id" in draft.frame:
        draft.frame["session_id"] = _numbered(draft.frame["session_id"])
        draft.number_turns = True
    return draft


def _of_model(table: Table, model: str) -> pd.Series[bool]:
    if "Model" not in table.frame:
        raise ValueError(
            f"{table.path.name} has no column Model to select {model!r}; leave model (--model) out"
        )
    models = table.frame["Model"].astype(str)
    if not (models == model).any():
        raise ValueError(
            f"{table.path.name} has no request of model {model!r}; "
            f"{did_you_mean(model, models.unique())}"
        )
    return models == model


def _numbered(names: pd.Series[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    codes, _ = pd.factorize(names)
    alone = codes < 0  # no session named: a session of its own
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes.astype(np.int64)


BURSTGPT = Format(
    name="burstgpt",
    title="BurstGPT CSV v1, v2, v3",
    container="csv",
    marks=frozenset(_COLUMNS.values()),
    uses=frozenset({"model"}),
    read=_read,
)
