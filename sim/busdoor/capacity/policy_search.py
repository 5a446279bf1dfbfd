"""One row of the table: the highest rate of one policy, or of static batching at its best batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import isinf

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.answer import NO_TOKENS, Answer, Least, advice_for, describe, find_least, found, nothing
from busdoor.capacity.bracket import Search, Try
from busdoor.capacity.control_fcfs import Backlog, Work
from busdoor.capacity.control_static import WholeBatches
from busdoor.capacity.control_variate import LEAST_REPLICATIONS, Queue, StandIn
from busdoor.capacity.estimate import Outcome, Reading, overload_rps, readings, stability
from busdoor.capacity.runs import Runs, begins_alike
from busdoor.capacity.steady_state import Window
from busdoor.capacity.trial import Probe, probe
from busdoor.comparison.experiment import MAX_BATCH_SIZE
from busdoor.config import PolicyTable
from busdoor.metrics.slo import SLO
from busdoor.policies.base import Policy
from busdoor.policies.static import StaticPolicy
from busdoor_workloads import Trace

_BURST = 4  # times the requests of the first run: a saturated one is as long as the server is full, and needs no window
_ALONE_SHARE = 4  # a run of lone requests may be so much shorter: they are independent of each other
_ROUGH_TOLERANCE = 0.1  # of the search among batch sizes
_ROUGH_REPLICATIONS = 3
_ROUGH_BATCHES = 16  # that each of its runs has at least
_CURVE = (0.1, 0.25, 0.5, 0.7, 0.85)  # of the highest rate: what a picture shows of lower ones
_CURVE_GAP = 0.1  # of a rate: nearer to one that was tried nothing is missing
_CURVE_REPLICATIONS = 2  # no decision rests on them


@dataclass(frozen=True)
class Solver:
    """Answers for one policy at a time; several threads may ask it.

    Parameters
    ----------
    runs : Runs
        The server and the draws.
    slo : SLO
        What is to be kept.
    num_requests : int
        Of the first runs of each replication.
    max_doublings : int
        How often they are doubled where they are too short to decide.
    tolerance : float
        Half of the bracket's width, as a share of the answer.
    tell : callable
        Told what is tried: a label, requests per second, and requests.
    """

    runs: Runs
    slo: SLO
    num_requests: int
    max_doublings: int
    tolerance: float
    tell: Callable[[str, float, int], None]

    def solve(self, policy: PolicyTable) -> Answer:
        """Answer for a policy as it is."""
        refusal = self._unfit(policy)
        if refusal is not None:
            return refusal
        own = self._serving(policy)
        answer = own._answer(policy)
        return replace(answer, refused=own.runs.refused) if own is not self else answer

    def _serving(self, policy: PolicyTable) -> Solver:
        """Return what answers for a policy, without the requests that it refuses."""
        runs = self.runs.serving(self._built(policy))
        return self if runs is self.runs else replace(self, runs=runs)

    def _answer(self, policy: PolicyTable) -> Answer:
        lone = self._lone(policy)
        late = [reading for reading in lone if reading.outcome is Outcome.MISSES]
        if not late:
            return self._search(self.settled(policy), lone)
        worst = max(late, key=lambda reading: reading.ratio)
        return nothing(policy.label, f"a lone request already has {describe(worst, self.slo)}")

    def _unfit(self, policy: PolicyTable) -> Answer | None:
        """Answer why no rate can meet the SLO, if nothing has to be run to know it."""
        try:
            self._built(policy)
        except ValueError as error:  # it does not fit the memory, or the draws
            return nothing(policy.label, str(error))
        if self.slo.needs_tokens and not self._streams(policy):
            return nothing(policy.label, NO_TOKENS)
        return None

    def _lone(self, policy: PolicyTable) -> list[Reading]:
        """Read the targets off requests that never meet another one, and wait for none."""
        count = max(1, self.num_requests // _ALONE_SHARE)
        samples = self.runs.alone(policy, count, len(self.runs.traces))
        whole = Window(0, min(len(sample.arrival_s) for sample in samples), steady=True)
        return readings(samples, self.slo.targets, whole)

    def _streams(self, policy: PolicyTable) -> bool:
        return self._built(policy).streams

    def _built(self, policy: PolicyTable) -> Policy:
        limits = self.runs.limits
        return policy.capped(limits.max_output_tokens).build(limits.kv, self.runs.traces[0])

    def _search(self, policy: PolicyTable, lone: list[Reading], begin_rps: float | None = None) -> Answer:
        count = len(self.runs.traces)

        @cache
        def saturated(num_requests: int) -> NDArray[np.float64]:
            return _usable(self.runs.saturated(policy, num_requests, count))

        def attempt(request_rate: float, doublings: int) -> Probe:
            length = self._length(doublings)
            load = stability(request_rate, saturated(burst))
            if load.outcome is Outcome.OPEN:
                load = stability(request_rate, saturated(max(burst, length)))
            self.tell(policy.label, request_rate, length)
            if load.outcome is Outcome.MISSES:
                return Probe(request_rate, length, (load,), None)
            samples = self.runs.at_rate(policy, request_rate, length, count)
            return probe(request_rate, samples, self.slo.targets, load, stand_in)

        burst = self._length(0, _BURST)
        carried = float(saturated(burst).mean()) if len(saturated(burst)) else self._closed_form(policy)
        stand_in = self._stand_in(policy, carried)
        ceiling_rps = overload_rps(saturated(burst), carried)
        search = Search(attempt, ceiling_rps, self.tolerance, self.max_doublings, begin_rps=begin_rps)
        search.run()
        least = Least(0.0)
        if search.low is not None:
            built = self._built(policy)
            least = find_least(built, lone, attempt, search.low, self.tolerance, self.max_doublings)
            search.probes += self._curve(policy, search, least)
        return found(policy.label, search, least, carried, self.slo, advice_for(self.runs.fixed))

    def _curve(self, policy: PolicyTable, search: Search, least: Least) -> list[Probe]:
        """Run lower rates that no search needs, for the picture: few replications, and as short as can be."""
        assert search.low is not None
        tried = [probe.request_rate for probe in (*search.probes, *least.probes) if probe.window]
        rates = [share * search.low.request_rate for share in _CURVE]
        gaps = [rate for rate in rates if rate > least.meets and min(abs(rate / own - 1) for own in tried) > _CURVE_GAP]
        length, unknown = self._length(0), stability(0.0, np.empty(0))
        return [
            probe(rate, self.runs.at_rate(policy, rate, length, _CURVE_REPLICATIONS), self.slo.targets, unknown)
            for rate in gaps
        ]

    def _length(self, doublings: int, times: int = 1) -> int:
        return min(times * self.num_requests << doublings, self.runs.longest)

    def _closed_form(self, policy: PolicyTable, trace: Trace | None = None) -> float:
        return self._built(policy).capacity_rps(trace or self.runs.traces[0], self.runs.config.step_time)

    def settled(self, policy: PolicyTable) -> PolicyTable:
        """Settle a batch size that was not chosen: the largest that fits in all draws, not another one in each."""
        if getattr(policy.config, "batch_size", 0) is not None:
            return policy
        capped, kv = policy.capped(self.runs.limits.max_output_tokens), self.runs.limits.kv
        return policy.with_fields(policy.label, batch_size=min(capped.build(kv, t).num_slots for t in self.runs.traces))

    def _stand_in(self, policy: PolicyTable, carried_rps: float) -> StandIn | None:
        """Return what tells lucky draws from others; None where more draws cannot be had, or the runs are few."""
        runs = self.runs
        if runs.reference is None or len(runs.traces) < LEAST_REPLICATIONS:
            return None
        if runs.refused.num or not begins_alike(runs.config):
            return None
        queue = self._queue(policy, carried_rps)
        return None if queue is None else StandIn(runs.traces, runs.reference, queue)

    def _queue(self, policy: PolicyTable, carried_rps: float) -> Queue | None:
        """Return the queue that stands in for a server.

        None for whole batches of several that are not formed in order of arrival, or leave before they are full: how
        they happen to form explains more than how the requests come.
        """
        built = self._built(policy)
        if type(built) is StaticPolicy and (built.num_slots == 1 or isinf(built.max_wait_s)):
            options = built.num_slots, built.streams, built.padding, built.reads_padding
            return WholeBatches(self.runs.config.step_time, *options)
        if isinstance(built, StaticPolicy) and built.num_slots > 1:
            return None
        lengths = self.runs.traces[0].select(np.arange(self._length(0, _BURST)))
        return Backlog(Work(lambda trace: self._closed_form(policy, trace), lengths, carried_rps))

    def solve_best(self, policy: PolicyTable, plain: Answer) -> Answer:
        """Answer for static batching at the batch size that meets the SLO at the highest rate.

        Parameters
        ----------
        policy : PolicyTable
            With a batch size of its own.
        plain : Answer
            For that.
        """
        own = self._serving(policy)
        answer = own._answer_best(policy, plain)
        return replace(answer, refused=own.runs.refused) if own is not self else answer

    def _answer_best(self, policy: PolicyTable, plain: Answer) -> Answer:
        if not plain.probes:
            return plain.named(_tuned_label(policy.label, None))  # no batch size would change that
        (size, rough_rps), own = self._best_size(policy, plain.low), self._built(self.settled(policy)).num_slots
        if size is None or size == own:
            return plain.named(_tuned_label(policy.label, own))
        best = policy.with_fields(_tuned_label(policy.label, size), batch_size=size)
        return self._search(best, self._lone(best), (1 + _ROUGH_TOLERANCE) * rough_rps)

    def _best_size(self, policy: PolicyTable, least_rps: float) -> tuple[int | None, float]:
        """Try powers of two, until two in a row bring nothing; each has to do better than the best so far.

        What comes back is the best size, None for none, and about the rate that it serves.
        """
        best_size, best_rps, idle, size = None, least_rps, 0, 1
        while size <= MAX_BATCH_SIZE and idle < 2:
            candidate = policy.with_fields(policy.label, batch_size=size)
            if self._closed_form(candidate) > best_rps:
                rate = self._rough_rate(candidate, size, best_rps)
                idle = 0 if rate > best_rps else idle + 1
                best_size, best_rps = (size, rate) if rate > best_rps else (best_size, best_rps)
            size *= 2
        return best_size, best_rps

    def _rough_rate(self, policy: PolicyTable, size: int, least_rps: float) -> float:
        length = min(max(self.num_requests, _ROUGH_BATCHES * size), self.runs.longest)
        carried = self._closed_form(policy)
        search = Search(self._rough_try(policy, length, carried), carried, _ROUGH_TOLERANCE, 0, least_rps=least_rps)
        search.run()
        return search.rate

    def _rough_try(self, policy: PolicyTable, length: int, carried_rps: float) -> Try:
        def attempt(request_rate: float, doublings: int) -> Probe:
            self.tell(f"{policy.label}, batch size {policy.config.batch_size}", request_rate, length)
            load = stability(request_rate, np.full(2, carried_rps))
            if load.outcome is Outcome.MISSES:
                return Probe(request_rate, length, (load,), None)
            samples = self.runs.at_rate(policy, request_rate, length, _ROUGH_REPLICATIONS)
            return probe(request_rate, samples, self.slo.targets, load)

        return attempt


def _usable(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out runs too short to fill the server; a single one has to do where there is no more."""
    finite = rates[np.isfinite(rates)]
    return np.repeat(finite, 2) if len(finite) == 1 else finite


def _tuned_label(label: str, size: int | None) -> str:
    best = "best batch" if size is None else f"best batch {size}"
    return f"{label[:-1]}, {best})" if label.endswith(")") else f"{label} ({best})"
