"""One run: a trace, a policy and a step-time model in; a result out."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Any

import pandas as pd
import simpy

from busdoor._version import __version__
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor.policies.offered_load import accepted, offered_load
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server
from busdoor.simulator.standstill import check_all_left
from busdoor.step_time import StepTime, as_step_time
from busdoor.step_time.mfu import run_utilisation
from busdoor.step_time.roofline import RooflineStepTime
from busdoor_workloads import Trace, given
from busdoor_workloads.memory_check import check_memory

Progress = Callable[[int, int], None]
REQUEST_BYTES = 300  # of a run without iterations, tables included: measured 306
_PROGRESS_EVERY = 1000  # requests between two reports, or where these are slow, so many seconds: often enough for a
_PROGRESS_EVERY_S = 0.5  # bar, too seldom to cost time


class Interrupted(KeyboardInterrupt):
    """A run that was stopped; `result` has what was done until then, the rest with status "unfinished"."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"stopped after {(result.requests['status'] != 'unfinished').sum()} requests")
        self.result = replace(result, meta={**result.meta, "complete": False})


def simulate(
    trace: Trace | pd.DataFrame,
    policy: Policy,
    step_time: StepTime | str | Mapping[str, Any],
    *,
    lookahead: int = 0,
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
        Seconds that an iteration takes: a model, a calibration's name or file, or a table [step_time].
    lookahead : {0, 1}
        When an iteration is decided: at the end of the one before, or while the one before still runs.
    step_by_step : bool
        Make every iteration an event: slow, with the same results.
    iterations : bool
        Keep the tables of iterations and stays (needed for ITL, seats, memory and most plots).
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
    Four requests, four slots, an iteration a second: continuous batching answers the first after 10 iterations.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> trace = Trace(arrival_s=[0, 0, 0, 0], input_tokens=[8, 8, 8, 8], output_tokens=[10, 20, 50, 100])
    >>> policy = VllmPolicy(PagedKV(100, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=512)
    >>> simulate(trace, policy, LinearStepTime(base_s=1.0)).requests["finish_s"].tolist()
    [10.0, 20.0, 50.0, 100.0]
    """
    trace, step_time = as_trace(trace), as_step_time(step_time)
    _check(policy, lookahead)
    noted = given.table("meta", {} if meta is None else meta)
    progress = given.function("progress", progress)
    env = simpy.Environment()
    kv = getattr(policy, "kv", None)
    recorder = TableRecorder(policy, iterations)
    clients = Clients(env, trace, getattr(kv, "block_size", 16))
    on_leave = reporting(clients.left, len(trace), progress)
    server = Server(
        env, policy, step_time, lookahead=lookahead, step_by_step=step_by_step, recorder=recorder, on_leave=on_leave
    )
    clients.start(server)
    described = describe_run(trace, policy, step_time, lookahead)

    def result() -> Result:
        requests, table = recorder.requests(), recorder.iterations()
        load = {"offered_load": offered_load(accepted(trace, requests), policy, step_time)}
        meta_of_run = described | load | utilisation(step_time, table) | noted
        return Result(requests=requests, iterations=table, stays=recorder.stays(), meta=meta_of_run)

    return run_to_end(env, trace, [recorder], result, type(policy).__name__)


def run_to_end(
    env: simpy.Environment,
    trace: Trace,
    recorders: Sequence[TableRecorder],
    result: Callable[[], Result],
    policy_name: str,
) -> Result:
    """Run until nothing happens any more, and return the result.

    Parameters
    ----------
    env : simpy.Environment
        What runs.
    trace : Trace
        What was sent.
    recorders : sequence of TableRecorder
        Those that write down every request once; one that none knows when a run is stopped is written by the first.
    result : callable
        Makes the result of the tables.
    policy_name : str
        What an error names.

    Raises
    ------
    Interrupted
        A KeyboardInterrupt that carries what was done until then.
    ValueError
        Requests of the trace have not left when nothing happens any more.
    """
    check_memory(len(trace) * REQUEST_BYTES, f"a run of {len(trace):,} requests")
    try:
        env.run()
    except KeyboardInterrupt:
        for recorder in recorders:
            recorder.stop(trace, env.now, set().union(*(other.known() for other in recorders if other is not recorder)))
        raise Interrupted(result()) from None
    check_all_left(trace, recorders, policy_name)
    return result()


def as_trace(trace: Trace | pd.DataFrame) -> Trace:
    """Return a trace as it is, and a data frame as one; ValueError for anything else."""
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, pd.DataFrame):
        return Trace.from_frame(trace)
    raise ValueError(
        f"trace is of type {type(trace).__name__}; it has to be a Trace or a data frame: read_trace reads a file, and "
        "profile('azure-conv').generate() draws one"
    )


def _check(policy: object, lookahead: object) -> None:
    if not isinstance(policy, Policy):
        raise ValueError(
            f"policy is of type {type(policy).__name__}; it has to be a Policy, as "
            "policy_config('vllm').build(KVConfig(num_blocks=..., max_model_len=...)) makes one; compare takes names"
        )
    if lookahead not in (0, 1) or isinstance(lookahead, bool):
        raise ValueError(f"lookahead is {lookahead!r}; it has to be 0 or 1")


def describe_run(trace: Trace, policy: Policy, step_time: StepTime, lookahead: int) -> dict[str, Any]:
    """Return what ran, as a result's meta.json keeps it."""
    kv = getattr(policy, "kv", None)
    return {
        "policy": re.sub(r"(?<=.)(?=[A-Z])", "_", type(policy).__name__.removesuffix("Policy")).lower(),
        "streams": policy.streams,
        "whole_batch": policy.whole_batch,
        "num_slots": policy.num_slots,
        "num_blocks": getattr(kv, "num_blocks", 0),
        "block_size": getattr(kv, "block_size", 1),
        "max_model_len": getattr(policy, "max_model_len", None),
        "step_time": step_time.describe(),
        "lookahead": lookahead,
        "trace": trace.name,
        "trace_metadata": dict(trace.metadata),
        "num_requests": len(trace),
        "trace_duration_s": trace.duration_s,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of busdoor, Python and what the numbers depend on."""
    return dict(_versions())


@cache  # milliseconds to look up, for every server of a cluster
def _versions() -> dict[str, str]:
    found = {"busdoor": __version__, "python": platform.python_version()}
    for name in ("simpy", "numpy", "pandas"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def utilisation(step_time: StepTime, iterations: pd.DataFrame) -> dict[str, float]:
    """Shares of the GPU's matrix rate and bandwidth that the model needed, where the step time knows the GPU."""
    if not isinstance(step_time, RooflineStepTime) or not len(iterations):
        return {}
    return run_utilisation(step_time, iterations)._asdict()


def reporting(left: Callable[[Request], None], total: int, progress: Progress | None) -> Callable[[Request], None]:
    """Report to `progress`, if there is one, some times per second how many requests have left."""
    if progress is None:
        return left
    done, next_s = 0, monotonic() + _PROGRESS_EVERY_S

    def leave(request: Request) -> None:
        nonlocal done, next_s
        done += 1
        if done % _PROGRESS_EVERY == 0 or done == total or monotonic() >= next_s:
            next_s = monotonic() + _PROGRESS_EVERY_S
            progress(done, total)
        left(request)

    return leave
