"""Use of the slots, the computed tokens and the KV memory of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def slot_keys(
    iterations: pd.DataFrame, stays: pd.DataFrame, meta: Mapping[str, Any], requests: pd.DataFrame
) -> dict[str, float]:
    """Return how much of the slots and of the computed tokens was useful."""
    keys = (
        "slot_use",
        "useful_share",
        "bubble_share",
        "padding_share",
        "mean_batch_size_time",
        "mean_batch_size_iterations",
    )
    if not len(iterations):
        return dict.fromkeys(keys, np.nan)
    repeat, duration = iterations["repeat"], iterations["duration_s"]
    useful = ((iterations["num_requests"] - iterations["num_idle_rows"]) * repeat).sum()
    taken = (iterations["num_running"] * repeat).sum()
    padded = (iterations["num_padded_tokens"] * repeat).sum()
    tokens = (
        (iterations["num_prefill_tokens"] + iterations["num_decode_tokens"]) * repeat
    ).sum() + padded
    span = float((iterations["start_s"] + duration).max() - requests["arrival_s"].min())
    held = float((stays["leave_s"] - stays["enter_s"]).sum())
    values = (
        held / (span * meta["num_slots"]) if span else np.nan,
        useful / taken,
        1 - useful / taken,
        padded / tokens,
        (iterations["num_requests"] * duration).sum() / duration.sum(),
        (iterations["num_requests"] * repeat).sum() / repeat.sum(),
    )
    return {key: float(value) for key, value in zip(keys, values, strict=True)}


def memory_keys(iterations: pd.DataFrame, meta: Mapping[str, Any]) -> dict[str, float]:
    """Return shares of the KV memory while the server was busy, weighted by time."""
    busy = iterations["duration_s"].sum() if len(iterations) else 0.0
    if not busy:
        return dict.fromkeys(("kv_used_share", "kv_reserved_share", "kv_wasted_share"), np.nan)
    block_size, capacity = _kv_size(iterations, meta)
    grown = iterations["kv_blocks_used_last"] - iterations["kv_blocks_used"]
    rows = (iterations["context_tokens_last"] - iterations["context_tokens"]) / 2
    weights = iterations["duration_s"] / busy
    reserved = ((iterations["kv_reserved_tokens"] + grown * block_size / 2) * weights).sum()
    used = ((iterations["kv_used_tokens"] + rows) * weights).sum()
    holes = (iterations["kv_hole_tokens"] * weights).sum()
    taken = reserved + holes
    if np.ndim(capacity):
        capacity = (capacity * weights).sum()
    return {
        "kv_used_share": float(used / capacity),
        "kv_reserved_share": float(reserved / capacity),
        "kv_wasted_share": float(1 - used / taken) if taken else np.nan,
    }


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
