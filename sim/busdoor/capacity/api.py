"""`capacity`: from a workload, policies and a promise to the rates that keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from busdoor.capacity.capacity import Capacity
from busdoor.capacity.sample import Runs, processes, reference, unit_rate
from busdoor.capacity.slo import Promise, slo_table
from busdoor.capacity.study import Study
from busdoor.config import DEFAULT_POLICIES, Config
from busdoor.experiment import Report
from busdoor.run import limits_for
from busdoor.study import Load, draws, workload_table
from busdoor_workloads import Trace

# What the built-in job promises: MLPerf's server scenario for the default model.
DEFAULT_SLO = "mlperf-llama3.1-8b-server"
NUM_REQUESTS = 1000  # of the first runs; longer ones only where these cannot decide
REPLICATIONS = 8  # with fewer, Student's t makes the bounds wide; with more, each is mostly warm-up
MAX_DOUBLINGS = 5
TOLERANCE = 0.02


def capacity(
    workload: Load = "azure-conv",
    policies: Sequence[str | Mapping[str, Any]] = DEFAULT_POLICIES,
    slo: str | Sequence[str] | Mapping[str, Any] = DEFAULT_SLO,
    *,
    gpu: str | Mapping[str, Any] = "h100",
    model: str | Mapping[str, Any] = "llama-3.1-8b",
    gpu_options: Mapping[str, Any] = MappingProxyType({}),
    num_requests: int = NUM_REQUESTS,
    replications: int = REPLICATIONS,
    tolerance: float = TOLERANCE,
    max_doublings: int = MAX_DOUBLINGS,
    seed: int = 0,
    jobs: int = 1,
    report: Report | None = None,
    **tables: Any,
) -> Capacity:
    """Find the highest arrival rate at which each policy keeps a promise.

    Every rate is tried on the same draws (arrivals at one a second, stretched in time), over replications, and counts
    as kept or broken only when a one-sided 95 % bound says so; runs that are too short for that are lengthened. A rate
    that the server does not carry when everybody is there from the start is broken whatever its latencies. What is
    measured is the steady window of each run; see `busdoor.capacity.window.steady_window`.

    Parameters
    ----------
    workload, policies, gpu, model, gpu_options
        As in `busdoor.compare`; the workload's own rate is replaced.
    slo : str, sequence of str or mapping
        "ttft_p99=2s", a preset's name, several of them, or a table; see `Promise.from_table`.
    num_requests : int
        Of each replication's first runs. A trace file is always run whole.
    replications : int
        Draws of the workload, all policies and rates on the same ones.
    tolerance : float
        Half of the bracket's width, as a share of the answer.
    max_doublings : int
        How often runs that are too short may be lengthened.
    seed : int
        Of every random stream.
    jobs : int
        Processes. More than one needs the script to be guarded by `if __name__ == "__main__":`.
    report : callable, optional
        Told about progress: the share that is done, and what is being done.
    **tables
        Further tables and keys of a configuration: `kv`, `step_time`, `lookahead`.

    Returns
    -------
    Capacity
        With rate 0 and the reason for policies that keep the promise at no rate.

    Raises
    ------
    ValueError
        One sentence that names what is wrong; also if no policy keeps the promise at any rate.

    Examples
    --------
    >>> found = capacity("azure-conv", ["vllm"], "e2e_p99=8s", num_requests=300, replications=4, tolerance=0.1)
    >>> low, high = found.table.loc["vllm", ["low", "high"]]
    >>> bool(low < found.table.loc["vllm", "request_rate"] < high < 1.23 * low)
    True
    >>> bool(found.plan(100.0, price_per_hour=2.5).loc["vllm", "replicas"] >= 4)
    True
    """
    given, recorded = workload_table(workload)
    table = {
        "workload": given,
        "policy": [{"name": policy} if isinstance(policy, str) else policy for policy in policies],
        "gpu": {"name": gpu, "model": model, **gpu_options},
        "replications": replications,
        "seed": seed,
        **tables,
    }
    promise = Promise.from_table(slo if isinstance(slo, Mapping) else slo_table([slo] if isinstance(slo, str) else slo))
    config = Config.from_table(table)
    with processes(jobs) as pool:
        study = make_study(
            config, promise, recorded, num_requests=num_requests, tolerance=tolerance, max_doublings=max_doublings
        )
        study.runs.pool = pool
        study.report = report or study.report
        study.run()
    return capacity_of(study)


def make_study(
    config: Config,
    promise: Promise,
    recorded: Trace | None = None,
    *,
    num_requests: int = NUM_REQUESTS,
    tolerance: float = TOLERANCE,
    max_doublings: int = MAX_DOUBLINGS,
) -> Study:
    """Settle draws and limits; what comes back can be run.

    Parameters are those of `capacity`; `recorded` is a trace in place of the configuration's workload.

    Raises
    ------
    ValueError
        If the workload has no requests or no rate of its own, or a number is out of range.
    """
    _check(num_requests, tolerance)
    if config.cluster is not None:
        raise ValueError("[cluster]: capacity asks one server and says how many are needed; leave the table out")
    fixed = recorded is not None or config.workload.path is not None
    unit = unit_rate(config, None if fixed else num_requests << max_doublings)
    draw = draws(unit, recorded)
    traces = [draw(number) for number in range(unit.replications)]
    if not min(map(len, traces)):
        raise ValueError(f"{traces[0].name} has no requests, so that no rate can be tried")
    if traces[0].concurrency:
        raise ValueError(
            f"{traces[0].name} is a closed loop, whose users wait for answers, so that it has no rate to look for"
        )
    length = len(traces[0]) if fixed else num_requests
    others = None if fixed else reference(unit)
    runs = Runs(unit, traces, limits_for(unit, traces), promise.needs_gaps, others)
    return Study(runs, promise, length, 0 if fixed else max_doublings, tolerance)


def capacity_of(study: Study) -> Capacity:
    """Return what a study has found so far.

    Raises
    ------
    ValueError
        If it is finished, and no policy keeps the promise at any rate.
    """
    answers, runs = tuple(study.answers), study.runs
    if study.finished and not any(answer.low for answer in answers):
        reasons = "; ".join(f"{answer.policy}: {answer.reason}" for answer in answers)
        raise ValueError(f"no policy keeps the promise {study.promise} at any rate: {reasons}")
    tokens = float(np.concatenate([trace.output_tokens for trace in runs.traces]).mean())
    count = len(runs.traces)
    return Capacity(runs.config, study.promise, answers, tokens, runs.num_runs, runs.num_requests, count)


def _check(num_requests: int, tolerance: float) -> None:
    if num_requests < 1:
        raise ValueError(f"num_requests is {num_requests}; it has to be 1 or more")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it has to be a share above 0 and below 1, as in 0.02")
