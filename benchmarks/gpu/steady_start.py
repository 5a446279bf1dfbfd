"""Traces that begin in the steady state: the requests that a long run would hold, then arrivals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from busdoor.policies.base import Policy
from busdoor.simulator.simulate import simulate
from busdoor.step_time.base import StepTime
from busdoor_workloads import Trace


def steady_start(
    trace: Trace, new_policy: Callable[[Trace], Policy], step_time: StepTime, warm_s: float
) -> Trace:
    """Cut the beginning of an open trace off, and put in its place what it leaves on the server.

    From an empty server, a load of 0.9 takes minutes to build up its batch; a replay of half a
    minute measures another load. The first `warm_s` seconds are simulated. The requests that are
    then on the server come first, all at once: each with its prompt and the answer so far as its
    prompt, and the rest of its answer; their latencies are those of parts of requests, and
    `num_present` in the metadata counts them. Later arrivals follow as they were, after the time in
    which the server computes these prompts, so that no line forms behind them. Raises ValueError if
    no request arrives after `warm_s`.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> trace = Trace(arrival_s=np.arange(100) / 5, input_tokens=[10] * 100, output_tokens=[100] * 100)
    >>> def new_policy(trace):
    ...     return VllmPolicy(PagedKV(1000, 16), 64, 256, max_model_len=256)
    >>> begun = steady_start(trace, new_policy, LinearStepTime(0.01, 1e-3), warm_s=10.0)
    >>> held = begun.metadata["num_present"]
    >>> held, begun.arrival_s[held - 1 : held + 2].round(2).tolist()
    (12, [0.0, 0.94, 1.14])
    >>> begun.output_tokens[:held].min().item(), begun.output_tokens[:held].max().item()
    (1, 100)
    """
    if warm_s >= trace.arrival_s[-1]:
        raise ValueError(
            f"warm_s is {warm_s:g} of a trace of {trace.arrival_s[-1]:g} s; draw a trace that is longer"
        )
    served = simulate(trace, new_policy(trace), step_time, iterations=False).requests
    present = served[(served["arrival_s"] <= warm_s) & ~(served["finish_s"] <= warm_s)]
    present = present[~present["status"].str.startswith("refused")]
    rows = present["request_id"].to_numpy()
    made = _generated(present, warm_s)
    held = _cut(trace.select(rows), made)
    first = simulate(held, new_policy(held), step_time, iterations=False).requests
    later = np.flatnonzero(trace.arrival_s > warm_s)
    begin_s = float(first["first_token_s"].max()) if len(rows) else 0.0
    rest = trace.select(later)
    return _joined(held, rest.with_arrivals(rest.arrival_s - warm_s + begin_s))


def _generated(present: pd.DataFrame, now_s: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the tokens that each request has generated, which come at an even pace."""
    passed_s = now_s - present["first_token_s"]
    share = passed_s / (present["finish_s"] - present["first_token_s"]).clip(lower=1e-12)
    most = present["output_tokens"] - 1
    made = np.floor(1 + share * most).clip(upper=most)
    return np.where(passed_s >= 0, made, 0).astype(np.int64)


def _cut(trace: Trace, made: np.ndarray[Any, np.dtype[np.int64]]) -> Trace:
    caps = trace.max_output_tokens
    return replace(
        trace.with_arrivals(np.zeros(len(trace))),
        input_tokens=trace.input_tokens + made,
        output_tokens=trace.output_tokens - made,
        max_output_tokens=None if caps is None else caps - made,
    )


def _joined(first: Trace, then: Trace) -> Trace:
    """Return one trace of two."""
    table = pd.concat([first.to_frame(), then.to_frame()], ignore_index=True)
    columns: dict[str, Any] = {str(name): table[name].to_numpy() for name in table}
    about = {**then.metadata, "num_present": len(first)}
    return Trace(**columns, block_size=then.block_size, name=then.name, metadata=about)
