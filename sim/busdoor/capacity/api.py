"""`capacity`: from a workload, policies and an SLO to the rates that meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from busdoor.capacity.draws import draw_traces, reference, unit_rate
from busdoor.capacity.result import Capacity
from busdoor.capacity.runs import Runs, processes
from busdoor.capacity.several import Studies
from busdoor.capacity.study import Study
from busdoor.comparison.api import Load, reject_unknown_keywords, server_table, workload_table
from busdoor.config import DEFAULT_POLICIES, Config
from busdoor.config.limits import check_sizes, limits_for
from busdoor.config.policy import policy_tables
from busdoor.core.progress import Report
from busdoor.html.notebook import notebook_progress
from busdoor.metrics.slo import SLO, as_slo_table
from busdoor.metrics.slo_presets import default_slo
from busdoor_workloads import Trace, given

NUM_REQUESTS = 1000  # of the first runs; longer ones only where these cannot decide
REPLICATIONS = 8  # with fewer, Student's t makes the bounds wide; with more, each is mostly warm-up
MAX_DOUBLINGS = 5
MOST_DOUBLINGS = 20  # a million times as many requests
MOST_REQUESTS = 500_000  # of a cluster's longest run: 20 MB for each draw
TOLERANCE = 0.02


def capacity(
    workload: Load = "azure-conv",
    policies: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = DEFAULT_POLICIES,
    slo: str | Sequence[str] | Mapping[str, Any] | None = None,
    *,
    gpu: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = "h100",
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
    """Find the highest request rate at which each policy meets an SLO.

    Every rate runs on the same draws (arrivals at one per second, stretched in time), over
    replications. It meets or misses the SLO only if a one-sided 95 % bound decides so; runs that
    are too short for that are lengthened. A rate above the saturated throughput misses it whatever
    the latencies. Only the steady window of each run is measured; see
    `busdoor.capacity.steady_state.steady_window`.

    Parameters
    ----------
    workload, policies, gpu, model, gpu_options
        As in `busdoor.compare`; the workload's own rate is replaced. Of several GPUs each has its
        rows.
    slo : str, sequence of str or mapping
        "ttft_p99=2s", a preset's name, several of them, or a table; see `SLO.from_table`. By
        default MLPerf's for the model, see `default_slo`.
    num_requests : int
        Requests of each replication's first runs, for each server of a [cluster]. A trace file
        always runs whole.
    replications : int
        Number of draws of the workload; all policies and rates run on the same ones.
    tolerance : float
        Half of the bracket's width, as a share of the answer.
    max_doublings : int
        How often runs that are too short may be lengthened.
    seed : int
        Seed of every random stream.
    jobs : int
        Number of processes. More than one needs a script guarded by `if __name__ == "__main__":`.
    report : callable, optional
        Called with progress: the share that is done, and what is being done.
    **tables
        Further tables and keys of a configuration: `kv`, `step_time` (or a calibration's name or
        file), `lookahead`.

    Returns
    -------
    Capacity
        With rate 0 and the reason for policies that meet the SLO at no rate.

    Raises
    ------
    ValueError
        If an argument is wrong (one sentence names it), or no policy meets the SLO at any rate.

    Examples
    --------
    >>> size = {"num_requests": 300, "replications": 4, "tolerance": 0.1}
    >>> found = capacity("azure-conv", ["vllm"], "e2e_p99=8s", **size)
    >>> low, high = found.table.loc["vllm", ["low", "high"]]
    >>> bool(low < found.table.loc["vllm", "request_rate"] < high < 1.23 * low)
    True
    >>> bool(found.plan(100.0, price_per_hour=2.5).loc["vllm", "replicas"] >= 4)
    True
    """
    reject_unknown_keywords(capacity, tables)
    own, recorded = workload_table(workload)
    table = {
        "workload": own,
        "policy": policy_tables(policies),
        "slo": as_slo_table(slo),
        "replications": replications,
        "seed": seed,
        **tables,
    }
    cards = [
        server_table(one, model, gpu_options, tables.get("step_time"))
        for one in ([gpu] if isinstance(gpu, str | Mapping) else gpu)
    ]
    report = given.function("report", report)
    jobs = given.whole_number("jobs", jobs, at_least=1)
    with notebook_progress(report) as shown, processes(jobs) as pool:
        study = make_studies(
            [with_slo(Config.from_table({**table, "gpu": own})) for own in cards],
            recorded,
            num_requests=num_requests,
            tolerance=tolerance,
            max_doublings=max_doublings,
        )
        study.start(pool, shown)
        study.run()
    return capacity_of(study)


def make_studies(
    configs: Sequence[Config], recorded: Trace | None = None, **settings: Any
) -> Study | Studies:
    """Return the study of one configuration, or of several servers for the same requests.

    Parameters as in `make_study`.
    """
    studies = [make_study(config, recorded, **settings) for config in configs]
    return studies[0] if len(studies) == 1 else Studies(studies)


def make_study(
    config: Config,
    recorded: Trace | None = None,
    *,
    num_requests: int = NUM_REQUESTS,
    tolerance: float = TOLERANCE,
    max_doublings: int = MAX_DOUBLINGS,
) -> Study:
    """Return a study with its draws and limits, ready to run.

    Parameters as in `capacity`; the SLO is the configuration's, and `recorded` a trace in place of
    its workload.

    Raises
    ------
    ValueError
        If the workload has no requests or no rate of its own, the SLO cannot be shown to be met, or
        a number is out of range.
    """
    _check(num_requests, tolerance, max_doublings)
    _check_slo(config.slo)
    check_sizes(config)
    fixed = recorded is not None or config.workload.path is not None
    servers = config.cluster.num_replicas if config.cluster else 1
    num_requests *= servers  # a server sees as many as it would alone
    while servers > 1 and num_requests << max_doublings > MOST_REQUESTS and max_doublings:
        max_doublings -= 1
    unit = unit_rate(config, None if fixed else num_requests << max_doublings)
    traces, refused = draw_traces(unit, recorded, fixed)
    length = len(traces[0]) if fixed else num_requests
    others = None if fixed else reference(unit)
    runs = Runs(
        unit, traces, limits_for(unit, traces), config.slo.needs_gaps, others, refused=refused
    )
    return Study(runs, config.slo, length, 0 if fixed else max_doublings, tolerance)


def capacity_of(study: Study | Studies) -> Capacity:
    """Return the results of a study so far.

    Raises
    ------
    ValueError
        If it is finished, and no policy meets the SLO at any rate.
    """
    answers, runs = tuple(study.answers), study.runs
    if study.finished and not any(answer.low for answer in answers):
        reasons = "; ".join(f"{answer.policy}: {answer.reason}" for answer in answers)
        raise ValueError(f"no policy meets the SLO {study.slo} at any rate: {reasons}")
    tokens = float(np.concatenate([trace.output_tokens for trace in runs.traces]).mean())
    spent = study.spent.num_runs, study.spent.num_requests, len(runs.traces)
    return Capacity(
        runs.config,
        study.slo,
        answers,
        tokens,
        *spent,
        runs.refused,
        complete=study.finished,
        servers=study.servers,
    )


def with_slo(config: Config) -> Config:
    """Return the configuration, with the default SLO of its model where it has none."""
    if config.slo:
        return config
    return replace(config, slo=SLO.from_table({"preset": default_slo(config.gpu.model.name)}))


def _check_slo(slo: SLO) -> None:
    if not slo:
        raise ValueError("[slo] has no limit; give one, as in ttft_p99 = '2s', or a preset")
    if any(target.share == 1 for target in slo.targets):
        raise ValueError(
            "[slo] goodput = 1.0: that every request is within the limits is not provable by "
            "sampling; give a share below 1, as in 0.99"
        )


def _check(num_requests: int, tolerance: float, max_doublings: int) -> None:
    given.whole_number("num_requests", num_requests, at_least=1)
    given.whole_number("max_doublings", max_doublings, at_most=MOST_DOUBLINGS)
    if not given.positive("tolerance", tolerance) < 1:
        raise ValueError(
            f"tolerance is {tolerance}; it must be a share above 0 and below 1, as in 0.02"
        )
