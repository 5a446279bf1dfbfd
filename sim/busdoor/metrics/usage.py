"""Use of the slots, the computed tokens and the KV memory of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

# Columns of iterations: of a table of them, or arrays by name.
Columns = pd.DataFrame | Mapping[str, Any]


def slot_keys(
    iterations: pd.DataFrame, stays: pd.DataFrame, meta: Mapping[str, Any], requests: pd.DataFrame
) -> dict[str, float]:
    """Return how much of the slots and of the computed tokens was useful."""
    if not len(iterations):
        return slot_shares(defaultdict(float), 0.0, 0.0)
    sums = {key: float(term.sum()) for key, term in slot_terms(iterations).items()}
    end_s = (iterations["start_s"] + iterations["duration_s"]).max()
    held_s = float((stays["leave_s"] - stays["enter_s"]).sum())
    span_s = float(end_s - requests["arrival_s"].min())
    return slot_shares(sums, held_s, span_s * meta["num_slots"])


def slot_terms(iterations: Columns) -> dict[str, Any]:
    """Return what each stretch adds to the sums of which `slot_shares` are made."""
    repeat, duration_s = iterations["repeat"], iterations["duration_s"]
    batch, padded = iterations["num_requests"], iterations["num_padded_tokens"]
    wanted = iterations["num_prefill_tokens"] + iterations["num_decode_tokens"]
    return {
        "busy_s": duration_s,
        "iterations": repeat,
        "batch_s": batch * duration_s,
        "batch_iterations": batch * repeat,
        "useful": (batch - iterations["num_idle_rows"]) * repeat,
        "taken": iterations["num_running"] * repeat,
        "padded": padded * repeat,
        "computed": (wanted + padded) * repeat,
    }


def slot_shares(sums: Mapping[str, float], held_s: float, slot_s: float) -> dict[str, float]:
    """Return the keys of `slot_keys`, where slots were held for some of `slot_s`; NaN of nothing."""
    useful = ratio(sums["useful"], sums["taken"])
    return {
        "slot_use": ratio(held_s, slot_s),
        "useful_share": useful,
        "bubble_share": 1 - useful,
        "padding_share": ratio(sums["padded"], sums["computed"]),
        "mean_batch_size_time": ratio(sums["batch_s"], sums["busy_s"]),
        "mean_batch_size_iterations": ratio(sums["batch_iterations"], sums["iterations"]),
    }


def ratio(part: float, whole: float) -> float:
    """Return a part of a whole; NaN of nothing."""
    return part / whole if whole else np.nan


def memory_keys(iterations: pd.DataFrame, meta: Mapping[str, Any]) -> dict[str, float]:
    """Return shares of the KV memory while the server was busy, weighted by time."""
    busy = iterations["duration_s"].sum() if len(iterations) else 0.0
    if not busy:
        return dict.fromkeys(("kv_used_share", "kv_reserved_share", "kv_wasted_share"), np.nan)
    block_size, capacity = _kv_size(iterations, meta)
    weights = iterations["duration_s"] / busy
    tokens = memory_tokens(iterations, block_size)
    reserved, used, holes = ((own * weights).sum() for own in tokens)
    taken = reserved + holes
    if np.ndim(capacity):
        capacity = (capacity * weights).sum()
    return {
        "kv_used_share": float(used / capacity),
        "kv_reserved_share": float(reserved / capacity),
        "kv_wasted_share": float(1 - used / taken) if taken else np.nan,
    }


def memory_tokens(iterations: Columns, block_size: Any) -> tuple[Any, Any, Any]:
    """Return the reserved tokens of KV memory, the used ones and holes, each stretch's mean."""
    grown = iterations["kv_blocks_used_last"] - iterations["kv_blocks_used"]
    rows = (iterations["context_tokens_last"] - iterations["context_tokens"]) / 2
    return (
        iterations["kv_reserved_tokens"] + grown * block_size / 2,
        iterations["kv_used_tokens"] + rows,
        iterations["kv_hole_tokens"],
    )


def _kv_size(iterations: pd.DataFrame, meta: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return tokens of a block and of a server's cache; per row where servers differ."""
    sizes = [
        (own["block_size"], own["num_blocks"] * own["block_size"])
        for own in meta.get("replicas", [meta])
    ]
    if len(set(sizes)) == 1:
        return sizes[0]
    of_rows = np.array(sizes)[iterations["replica"]]
    return of_rows[:, 0], of_rows[:, 1]
