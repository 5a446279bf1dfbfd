"""A simple queue in a server's place: the same requests as the runs, and many more draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Any, Protocol

from busdoor.capacity.control.fcfs import Backlog, Work
from busdoor.capacity.control.static import WholeBatches
from busdoor.capacity.control.variate import LEAST_REPLICATIONS, Control
from busdoor.capacity.draws import begins_alike
from busdoor.capacity.runs import Runs
from busdoor.capacity.steady_state import Window
from busdoor.core.arrays import Floats
from busdoor.metrics.slo_target import Target
from busdoor.policies.base import Policy
from busdoor.policies.static import StaticPolicy
from busdoor_workloads import Trace


class Queue(Protocol):
    """A server so simple that it is solved for many draws at once, one row each."""

    def draws(self, traces: Sequence[Trace], length: int) -> Any:
        """Return what it needs of the first requests of traces at one request per second."""

    def lateness(self, draws: Any, request_rate: float) -> Callable[[Target], Floats]:
        """Return a function of a target: how late each request is, shape (draws, n)."""

    def control(self, target: Target, own: Floats, others: Floats, ratio: float) -> Control:
        """Compare the lateness of the runs' requests with that of many draws, one row per draw.

        `ratio` is the runs' value over the limit.
        """


@dataclass(frozen=True)
class StandIn:
    """A simple queue that is fed the same requests as the runs, and many more draws of them.

    `traces`: one per replication, at one request per second; `reference` returns many more draws,
    of so many requests.
    """

    traces: Sequence[Trace]
    reference: Callable[[int], Sequence[Trace]]
    queue: Queue
    _drawn: dict[int, Sequence[Any]] = field(default_factory=dict, init=False, repr=False)

    def controls(
        self,
        targets: Sequence[Target],
        ratios: Sequence[float],
        request_rate: float,
        length: int,
        window: Window,
    ) -> list[Control]:
        """Compare the runs with the reference, in the same window, target by target.

        `ratios` are the runs' values over the limits.
        """
        if length not in self._drawn:
            self._drawn.clear()  # runs only get longer
            self._drawn[length] = [
                self.queue.draws(traces, length) for traces in (self.traces, self.reference(length))
            ]
        ours, theirs = (self.queue.lateness(draws, request_rate) for draws in self._drawn[length])
        rows = slice(window.begin, window.end)
        return [
            self.queue.control(target, ours(target)[:, rows], theirs(target)[:, rows], ratio)
            for target, ratio in zip(targets, ratios, strict=True)
        ]


def stand_in_for(policy: Policy, runs: Runs, lengths: Trace, carried_rps: float) -> StandIn | None:
    """Return the queue that shows how lucky the draws are; None without more draws or runs.

    The work of a request is estimated from `lengths`; `carried_rps` is what the policy carries at
    most.
    """
    if runs.reference is None or len(runs.traces) < LEAST_REPLICATIONS:
        return None
    if runs.refused.num or not begins_alike(runs.config):
        return None
    queue = _queue(policy, runs, lengths, carried_rps)
    return None if queue is None else StandIn(runs.traces, runs.reference, queue)


def _queue(policy: Policy, runs: Runs, lengths: Trace, carried_rps: float) -> Queue | None:
    """Return the queue that stands in for a server.

    None for whole batches of several that are not formed in order of arrival, or leave before they
    are full: how they happen to form explains more than how the requests come.
    """
    step_time = runs.config.step_time
    if type(policy) is StaticPolicy and (policy.num_slots == 1 or isinf(policy.max_wait_s)):
        return WholeBatches(
            step_time, policy.num_slots, policy.streams, policy.padding, policy.reads_padding
        )
    if isinstance(policy, StaticPolicy) and policy.num_slots > 1:
        return None
    return Backlog(Work(lambda trace: policy.capacity_rps(trace, step_time), lengths, carried_rps))
