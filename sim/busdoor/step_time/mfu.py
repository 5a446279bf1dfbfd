"""MFU and MBU: a model's shares of a GPU's matrix rate and memory bandwidth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch
from busdoor.step_time.roofline import RooflineStepTime
from busdoor.step_time.roofline_costs import distinct_experts
from busdoor.step_time.roofline_costs_of import costs_of

if TYPE_CHECKING:
    import pandas as pd

Numbers = NDArray[np.float64]

_COLUMNS = (
    "repeat",
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_idle_rows",
    "num_requests",
    "prefill_attention",
    "prefill_context_tokens",
    "context_tokens",
    "context_tokens_last",
)


class Utilisation(NamedTuple):
    """Shares from 0 to 1: of the dense matrix rate (MFU) and of the memory bandwidth (MBU)."""

    mfu: float
    mbu: float


def batch_utilisation(
    step_time: RooflineStepTime, batch: Batch, duration_s: float | None = None
) -> Utilisation:
    """MFU and MBU of one iteration that took `duration_s` (`step_time`'s own unless given).

    The model's FLOP and bytes at the datasheet's rates, over the duration. Wanted positions count,
    padding and finished rows do not (but for their part of the query-key pairs). Bytes are weights
    and KV cache, once each; neither activations nor what KV cache is written. With the durations of
    a roofline, whose efficiencies are at most 1, neither share can pass 1; with a share over 1, the
    durations given cannot have been that GPU's. MFU: Chowdhery et al., PaLM, arXiv 2204.02311,
    appendix B. MBU: Databricks, "LLM inference performance engineering".

    >>> from busdoor.catalog import gpu, model
    >>> step_time = RooflineStepTime(gpu("h100"), model("llama-3.1-8b"), engine="busdoor")
    >>> decode = batch_utilisation(step_time, Batch(num_decode_tokens=64, decode_context_tokens=64 * 1024))
    >>> round(decode.mfu, 3), round(decode.mbu, 3)
    (0.104, 0.727)
    """
    wanted = batch.num_prefill_tokens + batch.num_decode_tokens
    windows, rows = step_time.costs.windows, batch.num_decode_rows
    decode_pairs = np.array([float(batch.decode_attention)])
    keys, pairs = float(batch.prefill_context_tokens), batch.prefill_attention
    if windows:
        keys, pairs = windows.prefill(batch)
        decode_pairs = windows.decode_pairs(rows, decode_pairs)
    matrix_s, memory_s = _peak_seconds(
        step_time,
        np.array([wanted]),
        np.array([batch.num_requests]),
        np.array([pairs]),
        np.array([keys]),
        decode_pairs,
    )
    duration_s = duration_s or step_time.duration_s(batch)
    return Utilisation(float(matrix_s[0]) / duration_s, float(memory_s[0]) / duration_s)


def iteration_utilisation(step_time: RooflineStepTime, iterations: pd.DataFrame) -> pd.DataFrame:
    """MFU and MBU of a result's iterations, `mfu` and `mbu`; shares as `batch_utilisation`."""
    matrix_s, memory_s = _stretch_seconds(step_time, iterations)
    return iterations[[]].assign(
        mfu=matrix_s / iterations["duration_s"], mbu=memory_s / iterations["duration_s"]
    )


def run_utilisation(
    step_time: RooflineStepTime, iterations: pd.DataFrame, span_s: float | None = None
) -> Utilisation:
    """Return MFU and MBU of a run's iterations, as in `batch_utilisation`; NaN where nothing ran.

    They are shares of `span_s`, the time that iterations ran (the server not idle) unless given.
    """
    matrix_s, memory_s = _stretch_seconds(step_time, iterations)
    span = float(iterations["duration_s"].sum()) if span_s is None else span_s
    if not span:
        return Utilisation(np.nan, np.nan)
    return Utilisation(float(matrix_s.sum()) / span, float(memory_s.sum()) / span)


def _stretch_seconds(
    step_time: RooflineStepTime, iterations: pd.DataFrame
) -> tuple[Numbers, Numbers]:
    column = {name: iterations[name].to_numpy(dtype=np.float64) for name in _COLUMNS}
    rows = column["num_decode_tokens"] + column["num_idle_rows"]
    # the mean: it grows evenly
    context = (column["context_tokens"] + column["context_tokens_last"]) / 2
    pairs = column["prefill_attention"]
    keys = column["prefill_context_tokens"]
    decode_pairs = context + rows
    if windows := step_time.costs.windows:
        pairs, keys = windows.least_prefill(pairs, keys, column["num_prefill_tokens"])
        ends = (column[name] + rows for name in ("context_tokens", "context_tokens_last"))
        # below the mean: it bends down
        decode_pairs = sum(windows.decode_pairs(rows, end) for end in ends) / 2
    matrix_s, memory_s = _peak_seconds(
        step_time,
        column["num_prefill_tokens"] + column["num_decode_tokens"],
        column["num_requests"],
        pairs,
        keys,
        decode_pairs,
    )
    return matrix_s * column["repeat"], memory_s * column["repeat"]


def _peak_seconds(
    step_time: RooflineStepTime,
    tokens: Numbers,
    requests: Numbers,
    prefill_attention: Numbers,
    prefill_context_tokens: Numbers,
    decode_attention: Numbers,
) -> tuple[Numbers, Numbers]:
    """Seconds the work takes matrix units and memory of a GPU that reaches its datasheet."""
    ideal = replace(
        step_time,
        memory_efficiency=1.0,
        kv_efficiency=1.0,
        gemm_efficiency=1.0,
        attention_efficiency=1.0,
    )
    cost = costs_of(ideal)
    matrix_s = (
        tokens * (cost.dense_row_s + cost.experts_per_tok * cost.expert_row_s)
        + requests * cost.head_row_s
    )
    matrix_s = matrix_s + prefill_attention * cost.pair_s + decode_attention * cost.decode_flop_s
    memory_s = (
        cost.dense_read_s
        + cost.head_read_s
        + (prefill_context_tokens + decode_attention) * cost.key_s
    )
    return matrix_s, memory_s + distinct_experts(
        tokens, cost.num_experts, cost.experts_per_tok
    ) * cost.expert_read_s
