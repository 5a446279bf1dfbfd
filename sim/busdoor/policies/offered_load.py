"""How much of its capacity a trace asks of a policy: the overload flag."""

from __future__ import annotations

from math import inf, nan

import pandas as pd

from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime
from busdoor_workloads import Trace


def offered_load(trace: Trace, policy: Policy, step_time: StepTime) -> float:
    """Return the trace's rate over `Policy.capacity_rps`: 1 or more cannot be served for long.

    NaN where clients have no rate of their own: in a burst, and in a closed loop.

    >>> import numpy as np
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> trace = Trace(arrival_s=np.arange(100) / 2, input_tokens=np.full(100, 8), output_tokens=np.full(100, 128))
    >>> policy = VllmPolicy(PagedKV(1000, 16), max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)
    >>> round(offered_load(trace, policy, LinearStepTime(base_s=0.020, per_request_s=0.0005)), 3)
    0.768
    """
    if trace.concurrency or not 0 < trace.request_rate < inf:
        return nan
    return trace.request_rate / policy.capacity_rps(trace, step_time)


def accepted(trace: Trace, requests: pd.DataFrame) -> Trace:
    """Return a trace without the requests that were refused: they are no load."""
    refused = requests["status"].str.startswith("refused").to_numpy(dtype=bool)
    return trace.select(~refused) if refused.any() else trace
