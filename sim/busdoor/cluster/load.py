"""How much of a cluster's capacity a trace asks: the overload flag, as for one server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch
from busdoor.simulator.replica import Replica
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import continuous_capacity_rps
from busdoor_workloads import Trace


def cluster_load(trace: Trace, replicas: Sequence[Replica]) -> float:
    """Return the trace's rate over all replicas' capacity; NaN where clients have no rate."""
    if not _has_rate(trace):
        return nan
    return trace.request_rate / sum(
        replica.policy.capacity_rps(trace, replica.step_time) for replica in replicas
    )


def pools_load(trace: Trace, prefill: Sequence[Replica], decode: Sequence[Replica]) -> float:
    """Return the load of the busier pool; NaN where clients have no rate."""
    if not _has_rate(trace):
        return nan
    prompts = replace(trace, output_tokens=np.ones(len(trace), dtype=np.int64))
    decode_rps = sum(_decode_rps(trace, replica) for replica in decode)
    return max(cluster_load(prompts, prefill), trace.request_rate / decode_rps)


def _has_rate(trace: Trace) -> bool:
    return not trace.concurrency and 0 < trace.request_rate < inf


def _decode_rps(trace: Trace, replica: Replica) -> float:
    kv: Any = replica.policy.kv  # type: ignore[attr-defined]
    return continuous_capacity_rps(
        _DecodeTime(replica.step_time),
        trace.input_tokens,
        trace.output_tokens,
        max_num_seqs=replica.policy.num_slots,
        kv_tokens=kv.num_blocks * kv.block_size,
    )


class _DecodeTime(StepTime):
    """Another model's seconds without the prompts, which are computed elsewhere."""

    def __init__(self, step_time: StepTime) -> None:
        self.step_time = step_time

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        decodes = Batch(
            num_decode_tokens=batch.num_decode_tokens,
            decode_context_tokens=batch.decode_context_tokens,
        )
        return self.step_time.durations_s(decodes, repeat)
