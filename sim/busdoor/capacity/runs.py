"""Runs at a rate: the same draws stretched in time, spread over processes, and a sample of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.capacity.draws import NONE_REFUSED, Refused, taken_from_all
from busdoor.config import Config, PolicyTable
from busdoor.config.limits import Limits
from busdoor.config.recorded import burst
from busdoor.config.run import run
from busdoor.core.arrays import Floats
from busdoor.core.interrupt import end_pool, ignore_sigint
from busdoor.metrics.metrics import latencies, token_gaps
from busdoor.metrics.saturation import saturated_rates
from busdoor.metrics.slo_class import CLASSES_COLUMN, is_of_class
from busdoor.policies.base import Policy
from busdoor_workloads import Trace

T = TypeVar("T")

_ALONE_S = 1e5  # between requests that run alone: longer than any answer takes


class Task(NamedTuple):
    """What a process needs for one run."""

    config: Config
    policy: PolicyTable
    trace: Trace
    limits: Limits
    gaps: bool


class Sample(NamedTuple):
    """The arrivals and latencies of a run.

    `latencies_s` has one column per latency, one row per request in order of arrival: infinity
    without an answer, NaN where there is no such time (the TPOT of a single token). `iterations` is
    there if gaps between tokens are wanted.
    """

    arrival_s: Floats
    latencies_s: pd.DataFrame
    iterations: pd.DataFrame | None

    def part(self, begin: int, end: int) -> Sample:
        """Return the requests of rows begin to end, and the iterations of that time."""
        iterations = self.iterations
        if iterations is not None and len(self.arrival_s):
            until = self.arrival_s[end] if end < len(self.arrival_s) else np.inf
            iterations = iterations[iterations["start_s"].between(self.arrival_s[begin], until)]
        return Sample(self.arrival_s[begin:end], self.latencies_s.iloc[begin:end], iterations)

    def of_class(self, name: str) -> Sample:
        """Return the requests of a class of the SLO; all for an empty name."""
        if not name:
            return self
        own = is_of_class(self.latencies_s, name)
        return Sample(self.arrival_s[own], self.latencies_s[own], None)

    def values(self, latency: str) -> tuple[Floats, NDArray[np.int64]]:
        """Return the values of a latency in seconds, and how often each occurs."""
        if latency == "itl":
            assert self.iterations is not None
            empty = np.empty(0), np.empty(0, dtype=np.int64)
            return token_gaps(self.iterations) if len(self.iterations) else empty
        column = self.latencies_s[latency].to_numpy()
        column = column[~np.isnan(column)]
        return column, np.ones(len(column), dtype=np.int64)


def sample(task: Task) -> Sample:
    """Run a trace and return its latencies."""
    result = run(task.config, task.policy, task.trace, task.limits, iterations=task.gaps)
    order = np.argsort(result.requests["arrival_s"].to_numpy(), kind="stable")
    requests = result.requests.iloc[order]
    answered = (requests["status"] == "finished").to_numpy()
    times = latencies(requests, bool(result.meta["streams"])).reindex(requests.index)
    times[~answered] = np.inf
    if CLASSES_COLUMN in requests:
        times[CLASSES_COLUMN] = requests[CLASSES_COLUMN]
    iterations = result.iterations if task.gaps else None
    return Sample(requests["arrival_s"].to_numpy(), times.reset_index(drop=True), iterations)


def saturated_rps(task: Task) -> float:
    """Return requests per second when all requests are there from the start."""
    result = run(task.config, task.policy, burst(task.trace), task.limits, iterations=False)
    return float(saturated_rates(result.requests, result.meta)["request_throughput"])


@dataclass
class Spent:
    """Runs and their requests, counted by several threads."""

    num_runs: int = 0
    num_requests: int = 0
    _counting: Lock = field(default_factory=Lock, init=False, repr=False)

    def add(self, traces: Sequence[Trace]) -> None:
        """Count a run of each trace."""
        with self._counting:
            self.num_runs += len(traces)
            self.num_requests += sum(map(len, traces))


@dataclass
class Runs:
    """The runs of a study: every rate has the same requests, with gaps in the same proportions.

    Several threads may use it at once. `traces` are one per replication, at one request per second,
    as long as any run may get; a shorter run is the beginning. `gaps`: whether to keep gaps between
    tokens. `reference` returns many more draws, of so many requests, that never run; None where the
    workload cannot be drawn again (a file). Runs are in `pool`, by default in this process one
    after the other. `refused` requests are left out of the traces; `spent` counts runs and
    requests.
    """

    config: Config
    traces: Sequence[Trace]
    limits: Limits
    gaps: bool = False
    reference: Callable[[int], Sequence[Trace]] | None = None
    pool: ProcessPoolExecutor | None = None
    refused: Refused = NONE_REFUSED
    spent: Spent = field(default_factory=Spent)

    def serving(self, policy: Policy) -> Runs:
        """Return the runs of a policy: without the requests that it refuses."""
        traces, refused = taken_from_all(self.traces, [policy])
        if refused.num:
            return replace(self, traces=traces, refused=self.refused.and_more(refused))
        return self

    @property
    def fixed(self) -> bool:
        """Whether the requests are those of a file, so that there are no more of them."""
        return self.reference is None

    @property
    def servers(self) -> int:
        """Servers that share the requests."""
        cluster = self.config.cluster
        return 1 if cluster is None else cluster.num_replicas

    @property
    def longest(self) -> int:
        """Requests of the longest run that every replication can make."""
        return min(map(len, self.traces))

    def at_rate(
        self, policy: PolicyTable, request_rate: float, num_requests: int, replications: int
    ) -> list[Sample]:
        """Run a policy at so many requests per second."""
        traces = [
            trace.scale_time(1 / request_rate) for trace in self._first(num_requests, replications)
        ]
        return self._spread(sample, policy, traces)

    def alone(self, policy: PolicyTable, num_requests: int, replications: int) -> list[Sample]:
        """Run requests one at a time; a whole-batch policy does not wait for others."""
        waits = hasattr(policy.config, "max_wait_s")
        lone = policy.with_fields(policy.label, max_wait_s=0.0) if waits else policy
        traces = self._first(num_requests, replications)
        apart = [trace.with_arrivals(np.arange(len(trace)) * _ALONE_S) for trace in traces]
        return self._spread(sample, lone, apart)

    def saturated(self, policy: PolicyTable, num_requests: int, replications: int) -> Floats:
        """Return the maximum throughput of a policy in requests per second, by replication."""
        return np.array(
            self._spread(saturated_rps, policy, self._first(num_requests, replications))
        )

    def _first(self, num_requests: int, replications: int) -> list[Trace]:
        return [
            trace.select(np.arange(min(num_requests, len(trace))))
            for trace in self.traces[:replications]
        ]

    def _spread(
        self, work: Callable[[Task], T], policy: PolicyTable, traces: list[Trace]
    ) -> list[T]:
        self.spent.add(traces)
        tasks = [Task(self.config, policy, trace, self.limits, self.gaps) for trace in traces]
        return list(map(work, tasks) if self.pool is None else self.pool.map(work, tasks))


@contextmanager
def processes(jobs: int | None) -> Iterator[ProcessPoolExecutor | None]:
    """Start so many processes (by default one per processor); none for 1.

    They are spawned, so that a script with more than one needs the usual `if __name__ ==
    "__main__":`. Ctrl-C is for the parent, which ends them.
    """
    number = jobs or os.cpu_count() or 1
    if number == 1:
        yield None
        return
    pool = ProcessPoolExecutor(number, get_context("spawn"), initializer=ignore_sigint)
    try:
        yield pool
    except BaseException:
        end_pool(pool)
        raise
    pool.shutdown(wait=True)
