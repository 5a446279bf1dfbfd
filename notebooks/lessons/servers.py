"""The closed forms' server: iterations grow evenly per request, and memory is plenty."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor.theory import StepLine
from busdoor_workloads import Trace

PLENTY = 10**9  # blocks, slots, tokens: so many that they never decide
# 20 ms to read the weights and half a millisecond a request: the server of the survey's checks 18
# to 23.
LINE = StepLine(base_s=0.020, per_request_s=0.0005)


def continuous(slots: int = PLENTY) -> Policy:
    """Continuous batching that is bounded by its slots alone."""
    config = policy_config("vllm", max_num_seqs=slots, max_num_batched_tokens=PLENTY)
    return config.build(KVConfig(num_blocks=PLENTY, max_model_len=PLENTY))


def static(batch_size: int) -> Policy:
    """Static batching in memory that any batch fits."""
    config = policy_config("static", batch_size=batch_size, max_num_seqs=batch_size)
    return config.build(KVConfig(num_blocks=PLENTY, max_model_len=2**20))


def serve(
    policy: Policy,
    output_tokens: ArrayLike,
    arrival_s: ArrayLike | None = None,
    *,
    input_tokens: int = 1,
    line: StepLine = LINE,
) -> Result:
    """Run requests of these answers, at once or as given, on a server with this line.

    Examples
    --------
    >>> serve(static(2), [1, 3], line=StepLine(base_s=1.0)).requests["finish_s"].tolist()
    [3.0, 3.0]
    >>> serve(continuous(2), [1, 3], line=StepLine(base_s=1.0)).requests["finish_s"].tolist()
    [1.0, 3.0]
    """
    answers = np.asarray(output_tokens)
    arrivals = (
        np.zeros(len(answers)) if arrival_s is None else np.asarray(arrival_s, dtype=np.float64)
    )
    trace = Trace(
        arrival_s=arrivals, input_tokens=np.full(len(answers), input_tokens), output_tokens=answers
    )
    per_token_s = line.per_prefill_token_s
    step_time = LinearStepTime(
        base_s=line.base_s, per_request_s=line.per_request_s - per_token_s, per_token_s=per_token_s
    )
    return simulate(trace, policy, step_time, lookahead=0, iterations=False)
