"""One run: a trace, a policy and a step-time model in; a result out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from busdoor.catalog import Engine
from busdoor.catalog import engine as find_engine
from busdoor.policies.base import Policy
from busdoor.policies.offered_load import offered_load
from busdoor.results.result import Result
from busdoor.simulator.describe import describe_run
from busdoor.simulator.replica import Replica
from busdoor.simulator.system import (
    Entry,
    Interrupted,
    Progress,
    System,
    run_system,
    settled_lookahead,
)
from busdoor.step_time import StepTime, as_step_time
from busdoor_workloads import Trace

__all__ = ["Interrupted", "Progress", "as_trace", "simulate"]


def simulate(
    trace: Trace | pd.DataFrame,
    policy: Policy,
    step_time: StepTime | str | Mapping[str, Any],
    *,
    lookahead: int | None = None,
    engine: Engine | str | Mapping[str, Any] | None = None,
    step_by_step: bool = False,
    iterations: bool = True,
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a trace through a policy until every request has left.

    Parameters
    ----------
    trace : Trace or DataFrame
        Which requests arrive when; a data frame has a row per request, see `Trace.from_frame`.
    policy : Policy
        A fresh scheduler; it serves one run.
    step_time : StepTime, str or mapping
        Seconds that an iteration takes: a model, a calibration's name or file, or a table
        [step_time].
    lookahead : {0, 1}, optional
        When an iteration is decided: at the end of the one before, or while the one before still
        runs. By default the policy's own: 1 for `vllm`, else 0.
    engine : Engine, str or mapping, optional
        The engine whose front end requests pass, or what `busdoor.catalog.engine` takes; they come
        to the scheduler at once unless given. Its host's time is part of the step time.
    step_by_step : bool
        Make every iteration an event: slow, with the same results.
    iterations : bool
        Keep the tables of iterations and stays (needed for ITL, slots, memory and most plots).
    meta : mapping, optional
        What else the result's `meta` should say (gpu, model, seed, slo limits in seconds ...).
    progress : callable, optional
        Called now and then with the number of requests that have left, and of all.

    Returns
    -------
    Result

    Raises
    ------
    Interrupted
        A KeyboardInterrupt that carries what was done until then.
    ValueError
        The policy strands requests, or preempts without end.

    Examples
    --------
    Four requests, four slots, an iteration a second: continuous batching answers the first after 10
    iterations.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> trace = Trace(arrival_s=[0, 0, 0, 0], input_tokens=[8, 8, 8, 8], output_tokens=[10, 20, 50, 100])
    >>> policy = VllmPolicy(PagedKV(100, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=512)
    >>> simulate(trace, policy, LinearStepTime(base_s=1.0)).requests["finish_s"].tolist()
    [10.0, 20.0, 50.0, 100.0]
    """
    trace, step_time = as_trace(trace), as_step_time(step_time)
    _check(policy)
    ahead = settled_lookahead(lookahead, [policy])
    return run_system(
        trace,
        [Replica(policy, step_time)],
        _only,
        describe_run(trace, policy, step_time, ahead),
        lambda sent: offered_load(sent, policy, step_time),
        meta,
        lookahead=ahead,
        engine=None if engine is None else find_engine(engine),
        step_by_step=step_by_step,
        iterations=iterations,
        progress=progress,
    )


def _only(system: System) -> Entry:
    """Connect one server without a router."""
    (server,) = system.servers
    server.on_leave = system.on_leave
    return Entry(lambda clients: clients.start(server), system.recorders)


def as_trace(trace: Trace | pd.DataFrame) -> Trace:
    """Return a trace as it is, and a data frame as one; ValueError for anything else."""
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, pd.DataFrame):
        return Trace.from_frame(trace)
    raise ValueError(
        f"trace is of type {type(trace).__name__}; it must be a Trace or a data frame: "
        "read_trace reads a file, and profile('azure-conv').generate() draws one"
    )


def _check(policy: object) -> None:
    if not isinstance(policy, Policy):
        raise ValueError(
            f"policy is of type {type(policy).__name__}; it must be a Policy, as "
            "policy_config('vllm').build(KVConfig(num_blocks=..., max_model_len=...)) makes one; "
            "compare takes names"
        )
