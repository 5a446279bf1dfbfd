"""Static batching's best batch size under an SLO, found with short runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from busdoor.capacity.bracket import Search
from busdoor.capacity.estimate import Outcome, stability
from busdoor.capacity.runs import Runs
from busdoor.capacity.trial import Probe, probe
from busdoor.comparison.experiment import MAX_BATCH_SIZE
from busdoor.config import PolicyTable
from busdoor.metrics.slo import SLO

TOLERANCE = 0.1  # half of the bracket of each size's rate, as a share of it
_REPLICATIONS = 3
_BATCHES = 16  # that each run has at least


@dataclass(frozen=True)
class BatchSizes:
    """A search among batch sizes; `carried_rps` is what a policy carries, in closed form.

    The other fields are as in `Solver`.
    """

    runs: Runs
    slo: SLO
    num_requests: int
    carried_rps: Callable[[PolicyTable], float]
    report: Callable[[str, float, int], None]

    def best(self, policy: PolicyTable, least_rps: float) -> tuple[int | None, float]:
        """Try powers of two, until two in a row do not exceed the best rate so far.

        Returns the best size, None where none does better than `least_rps`, and about the rate that
        it serves.
        """
        best_size, best_rps, idle, size = None, least_rps, 0, 1
        while size <= MAX_BATCH_SIZE and idle < 2:
            candidate = policy.with_fields(policy.label, batch_size=size)
            if self.carried_rps(candidate) > best_rps:
                rate = self._rate(candidate, size, best_rps)
                idle = 0 if rate > best_rps else idle + 1
                best_size, best_rps = (size, rate) if rate > best_rps else (best_size, best_rps)
            size *= 2
        return best_size, best_rps

    def _rate(self, policy: PolicyTable, size: int, least_rps: float) -> float:
        """Return the highest rate that meets the SLO in short runs; 0 if it is too low."""
        length = min(max(self.num_requests, _BATCHES * size), self.runs.longest)
        carried_rps = self.carried_rps(policy)

        def attempt(request_rate: float, doublings: int) -> Probe:
            self.report(f"{policy.label}, batch size {size}", request_rate, length)
            load = stability(request_rate, np.full(2, carried_rps))
            if load.outcome is Outcome.MISSES:
                return Probe(request_rate, length, (load,), None)
            samples = self.runs.at_rate(policy, request_rate, length, _REPLICATIONS)
            return probe(request_rate, samples, self.slo.targets, load)

        search = Search(attempt, carried_rps, TOLERANCE, 0, least_rps=least_rps)
        search.run()
        return search.rate
