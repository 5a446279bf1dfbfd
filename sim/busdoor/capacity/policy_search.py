"""Search for the highest rate of a policy, or of static batching at its best batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.answer import NO_TOKENS, Answer, advice_for, describe, found, nothing
from busdoor.capacity.best_batch import TOLERANCE as ROUGH_TOLERANCE
from busdoor.capacity.best_batch import BatchSizes
from busdoor.capacity.bracket import Search
from busdoor.capacity.control.stand_in import StandIn, stand_in_for
from busdoor.capacity.estimate import Outcome, Reading, overload_rps, readings, stability
from busdoor.capacity.least import Least, find_least
from busdoor.capacity.runs import Runs
from busdoor.capacity.steady_state import Window
from busdoor.capacity.trial import Probe, probe
from busdoor.config import PolicyTable
from busdoor.config.run import carried_rps
from busdoor.metrics.slo import SLO
from busdoor.policies.base import Policy

_BURST = 4  # times the requests of the first run: a saturated one has no window to cut
# a run of lone requests may be so much shorter: they are independent of each other
_ALONE_SHARE = 4
_CURVE = (0.1, 0.25, 0.5, 0.7, 0.85)  # of the highest rate: lower ones for the figure
_CURVE_GAP = 0.1  # of a rate: nearer to a tried one, none is added
_CURVE_REPLICATIONS = 2  # they decide nothing


@dataclass(frozen=True)
class Solver:
    """Searches for one policy at a time; several threads may use it.

    `num_requests` are those of each replication's first runs, which are doubled up to
    `max_doublings` times where they are too short to decide; `tolerance` is half of the bracket's
    width, as a share of the answer. `report` is called before each rate with a label, requests per
    second, and requests.
    """

    runs: Runs
    slo: SLO
    num_requests: int
    max_doublings: int
    tolerance: float
    report: Callable[[str, float, int], None]

    def solve(self, policy: PolicyTable) -> Answer:
        """Return the answer for a policy as given."""
        refusal = self._unfit(policy)
        return refusal or self._noting(own := self._serving(policy), own._answer(policy))

    def solve_best(self, policy: PolicyTable, plain: Answer) -> Answer:
        """Return the answer for static batching at the best batch size; `plain` is its own's."""
        return self._noting(own := self._serving(policy), own._answer_best(policy, plain))

    def _serving(self, policy: PolicyTable) -> Solver:
        """Return the solver for a policy: without the requests that it refuses."""
        runs = self.runs.serving(self._built(policy))
        return self if runs is self.runs else replace(self, runs=runs)

    def _noting(self, own: Solver, answer: Answer) -> Answer:
        """Return an answer with the requests that only this policy refuses."""
        return answer if own is self else replace(answer, refused=own.runs.refused)

    def _answer(self, policy: PolicyTable) -> Answer:
        lone = self._lone(policy)
        late = [reading for reading in lone if reading.outcome is Outcome.MISSES]
        if not late:
            return self._search(self.settled(policy), lone)
        worst = max(late, key=lambda reading: reading.ratio)
        return nothing(policy.label, f"a lone request already has {describe(worst, self.slo)}")

    def _answer_best(self, policy: PolicyTable, plain: Answer) -> Answer:
        if not plain.probes:
            return plain.named(_tuned_label(policy.label, None))  # no batch size would change that
        sizes = BatchSizes(self.runs, self.slo, self.num_requests, self._closed_form, self.report)
        (size, rough_rps), own = (
            sizes.best(policy, plain.low),
            self._built(self.settled(policy)).num_slots,
        )
        if size is None or size == own:
            return plain.named(_tuned_label(policy.label, own))
        best = policy.with_fields(_tuned_label(policy.label, size), batch_size=size)
        return self._search(best, self._lone(best), (1 + ROUGH_TOLERANCE) * rough_rps)

    def _unfit(self, policy: PolicyTable) -> Answer | None:
        """Return why no rate can meet the SLO, if no run is needed to know it."""
        try:
            built = self._built(policy)
            if self.runs.config.cluster is not None:  # each pool's policy, and what the roles need
                self.runs.alone(policy, 1, 1)
        except ValueError as error:  # it does not fit the memory, or the draws
            return nothing(policy.label, str(error))
        no_tokens = self.slo.needs_tokens and not built.streams
        return nothing(policy.label, NO_TOKENS) if no_tokens else None

    def _lone(self, policy: PolicyTable) -> list[Reading]:
        """Measure the targets on requests that run alone and wait for none."""
        count = max(1, self.num_requests // _ALONE_SHARE)
        samples = self.runs.alone(policy, count, len(self.runs.traces))
        whole = Window(0, min(len(sample.arrival_s) for sample in samples), steady=True)
        return readings(samples, self.slo.targets, whole)

    def _built(self, policy: PolicyTable) -> Policy:
        limits = self.runs.limits
        return policy.capped(limits.max_output_tokens).build(limits.kv, self.runs.traces[0])

    def _search(
        self, policy: PolicyTable, lone: list[Reading], begin_rps: float | None = None
    ) -> Answer:
        count = len(self.runs.traces)

        @cache
        def saturated(num_requests: int) -> NDArray[np.float64]:
            return _usable(self.runs.saturated(policy, num_requests, count))

        def attempt(request_rate: float, doublings: int) -> Probe:
            length = self._length(doublings)
            load = stability(request_rate, saturated(burst))
            if load.outcome is Outcome.OPEN:
                load = stability(request_rate, saturated(max(burst, length)))
            self.report(policy.label, request_rate, length)
            if load.outcome is Outcome.MISSES:
                return Probe(request_rate, length, (load,), None)
            samples = self.runs.at_rate(policy, request_rate, length, count)
            return probe(request_rate, samples, self.slo.targets, load, stand_in, self.runs.servers)

        burst = self._length(0, _BURST)
        carried = (
            float(saturated(burst).mean()) if len(saturated(burst)) else self._closed_form(policy)
        )
        stand_in = self._stand_in(policy, carried)
        ceiling_rps = overload_rps(saturated(burst), carried)
        search = Search(
            attempt, ceiling_rps, self.tolerance, self.max_doublings, begin_rps=begin_rps
        )
        search.run()
        least = Least(0.0)
        if search.low is not None:
            built = self._built(policy)
            least = find_least(built, lone, attempt, search.low, self.tolerance, self.max_doublings)
            search.probes += self._curve(policy, search, least)
        answer = found(policy.label, search, least, carried, self.slo, advice_for(self.runs.fixed))
        return replace(answer, closed_rps=self._closed_form(policy), table=policy)

    def _curve(self, policy: PolicyTable, search: Search, least: Least) -> list[Probe]:
        """Run lower rates for the figure only: few replications, as short as possible."""
        assert search.low is not None
        tried = [probe.request_rate for probe in (*search.probes, *least.probes) if probe.window]
        rates = [share * search.low.request_rate for share in _CURVE]
        gaps = [
            rate
            for rate in rates
            if rate > least.meets and min(abs(rate / own - 1) for own in tried) > _CURVE_GAP
        ]
        length, unknown = self._length(0), stability(0.0, np.empty(0))
        return [
            probe(
                rate,
                self.runs.at_rate(policy, rate, length, _CURVE_REPLICATIONS),
                self.slo.targets,
                unknown,
            )
            for rate in gaps
        ]

    def _length(self, doublings: int, times: int = 1) -> int:
        return min(times * self.num_requests << doublings, self.runs.longest)

    def _closed_form(self, policy: PolicyTable) -> float:
        return carried_rps(self.runs.config, policy, self.runs.traces[0], self.runs.limits)

    def _stand_in(self, policy: PolicyTable, carried: float) -> StandIn | None:
        if self.runs.config.cluster is not None or self.slo.classes:
            return None  # the queue stands for one server, and for all requests
        lengths = self.runs.traces[0].select(np.arange(self._length(0, _BURST)))
        return stand_in_for(self._built(policy), self.runs, lengths, carried)

    def settled(self, policy: PolicyTable) -> PolicyTable:
        """Return a policy with a batch size: unless given, the largest that fits in all draws."""
        if getattr(policy.config, "batch_size", 0) is not None or len(self.runs.limits.pools) > 1:
            return policy
        capped, kv = policy.capped(self.runs.limits.max_output_tokens), self.runs.limits.kv
        return policy.with_fields(
            policy.label, batch_size=min(capped.build(kv, t).num_slots for t in self.runs.traces)
        )


def _usable(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out runs too short to fill the server; a single one counts twice."""
    finite = rates[np.isfinite(rates)]
    return np.repeat(finite, 2) if len(finite) == 1 else finite


def _tuned_label(label: str, size: int | None) -> str:
    best = "best batch" if size is None else f"best batch {size}"
    return f"{label[:-1]}, {best})" if label.endswith(")") else f"{label} ({best})"
