"""Bracketing the highest rate that keeps a promise, where a rate that was tried may stay open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, count
from math import exp, inf, isnan, log, sqrt

from busdoor.capacity.probe import Outcome, Probe

Try = Callable[[float, int], Probe]  # a rate in requests/s, and how often the requests have been doubled

# Of what the server carries at most: where a search goes down, first in small steps, since whole batches may keep a
# promise only close to the top, then in halves.
_DOWN = (0.95, 0.85, 0.7, 0.5, 0.35)
LEAST_SHARE = 1e-4  # of what it carries: a lower rate is of no use to anybody
_HIGHEST_SHARE = 2.0  # of what it carries: a run in which that meets is too short to fill the server
_HOPELESS = 1.5  # times the limit at the best rate: no rate beside it will do
_LOOKS = 2  # rounds, each halving the steps beside the best rate
_WORSE = 2  # steps down in a row with worse latencies: a batch that fills ever more slowly
_EFFORT = 40  # times the first run's requests: what is spent on lengthening, before an answer is left as wide as it is
_ASIDE = 0.8  # of the tolerance: how far from the expected answer a rate is tried, so that it can be decided
_EDGE = 0.1  # of the bracket: nearer to its ends no rate is tried


@dataclass
class Search:
    """Find a low rate that meets and a high one that misses, so close to each other as `tolerance` says.

    Parameters
    ----------
    attempt : callable
        Runs a rate, with the requests doubled so often.
    ceiling_rps : float
        About what the server carries at most: the search begins below it.
    tolerance : float
        Half of the bracket's width, as a share of the answer.
    max_doublings : int
        How often a run that is too short to decide is lengthened.
    least_rps : float
        Lower rates are not looked at.

    Attributes
    ----------
    probes : list of Probe
        All that were tried, in order.
    low, high : Probe or None
        The highest known to meet, and the lowest above it known to miss.
    """

    attempt: Try
    ceiling_rps: float
    tolerance: float
    max_doublings: int
    least_rps: float = 0.0
    probes: list[Probe] = field(default_factory=list)
    low: Probe | None = None
    high: Probe | None = None
    doublings: int = 0

    def run(self) -> None:
        """Bracket the answer, then narrow the bracket; `low` stays None if no rate meets."""
        self._descend()
        if self.low is not None:
            self._ascend()
        if self.high is not None and self.low is not None:
            self._narrow()

    @property
    def _least(self) -> float:
        return max(self.least_rps, LEAST_SHARE * self.ceiling_rps)

    @property
    def decided(self) -> bool:
        """Whether the bracket is as narrow as it should be."""
        return self.low is not None and self.high is not None and self._width <= self._wanted

    @property
    def rate(self) -> float:
        """The best guess between the ends: where the binding target would be just met; 0 if no rate meets."""
        if self.low is None:
            return 0.0
        return self.low.request_rate if self.high is None else self._crossing()

    def _try(self, request_rate: float) -> Probe:
        probe = self.attempt(request_rate, self.doublings)
        self.probes.append(probe)
        if probe.outcome is Outcome.MEETS and (self.low is None or request_rate > self.low.request_rate):
            self.low = probe
        if probe.outcome is Outcome.MISSES and (self.high is None or request_rate < self.high.request_rate):
            self.high = probe
        return probe

    def _descend(self) -> None:
        """Go down from the ceiling until a rate meets, or latencies only get worse."""
        worse, before = 0, inf
        for share in chain(_DOWN, (_DOWN[-1] / 2**n for n in count(1))):
            if share * self.ceiling_rps < self._least or worse == _WORSE:
                break
            ratio = self._try(share * self.ceiling_rps).binding.ratio
            if self.low is not None:
                return
            worse, before = (worse + 1 if ratio > before else 0), ratio
        self._look_around()
        self._lengthen()

    def _lengthen(self) -> None:
        """Try what stayed open again with longer runs, from the highest rate down."""
        while self.low is None and self.doublings < self.max_doublings:
            last = {probe.request_rate: probe.outcome for probe in self.probes}
            still_open = sorted((rate for rate, outcome in last.items() if outcome is Outcome.OPEN), reverse=True)
            if not still_open:
                return
            self.doublings += 1
            for rate in still_open:
                if self.low is None:
                    self._try(rate)

    def _look_around(self) -> None:
        """Try the rates beside the best one so far, before giving up."""
        for _ in range(_LOOKS):
            rates = sorted({probe.request_rate for probe in self.probes})
            best = min(self.probes, key=lambda probe: probe.binding.ratio, default=None)
            if best is None or best.binding.ratio > _HOPELESS:
                return
            place = rates.index(best.request_rate)
            for neighbour in (*rates[place + 1 : place + 2], *rates[max(0, place - 1) : place]):
                if self.low is None:
                    self._try((neighbour * best.request_rate) ** 0.5)

    def _ascend(self) -> None:
        """Go up to a rate that misses; only the first rate met can be without one above it."""
        assert self.low is not None
        above = [p for p in self.probes if p.outcome is Outcome.MISSES and p.request_rate > self.low.request_rate]
        self.high = min(above, key=lambda probe: probe.request_rate, default=None)
        step = 1 + 2 * self.tolerance
        rate = max(self.low.request_rate * step, self.ceiling_rps)
        while self.high is None and rate < _HIGHEST_SHARE * self.ceiling_rps:
            self._try(rate)
            rate *= step

    def _narrow(self) -> None:
        """Try rates beside the expected answer; where one stays open, come nearer from either side, then lengthen."""
        while not self.decided:
            probe = self._try(self._aim())
            if probe.outcome is Outcome.OPEN:
                self._flank(probe.request_rate)
                if not self._may_lengthen:
                    return
                self.doublings += 1

    def _flank(self, open_rps: float) -> None:
        for end in ("low", "high"):
            known = getattr(self, end).request_rate
            if max(known / open_rps, open_rps / known) > 1 + 2 * self.tolerance and not self.decided:
                self._try((known * open_rps) ** 0.5)

    @property
    def _may_lengthen(self) -> bool:
        """Whether runs of twice the length are allowed, and worth it after what has been spent."""
        spent = sum(probe.num_requests for probe in self.probes)
        longer = 2 * self.probes[-1].num_requests
        return self.doublings < self.max_doublings and spent + longer <= _EFFORT * self.probes[0].num_requests

    @property
    def _wanted(self) -> float:
        return (1 + self.tolerance) / (1 - self.tolerance)

    @property
    def _width(self) -> float:
        assert self.low is not None and self.high is not None
        return self.high.request_rate / self.low.request_rate

    def _aim(self) -> float:
        """Return the rate to try next: beside the expected answer, on the side where the bracket is wider."""
        assert self.low is not None and self.high is not None
        low, high, middle = self.low.request_rate, self.high.request_rate, self._crossing()
        below = middle / low > high / middle
        aside = middle * (1 - _ASIDE * self.tolerance) if below else middle * (1 + _ASIDE * self.tolerance)
        return float(min(max(aside, low * self._width**_EDGE), high / self._width**_EDGE))

    def _crossing(self) -> float:
        """Return where the target that the high end misses most would reach its limit, on a line in logarithms."""
        assert self.low is not None and self.high is not None
        key = self.high.missed.key
        near = [p for p in self.probes if self.low.request_rate <= p.request_rate <= self.high.request_rate]
        near = [probe for probe in near if not isnan(probe.ratio(key))]
        below = max((p for p in near if p.ratio(key) < 1), key=lambda p: p.request_rate, default=self.low)
        above = min((p for p in near if p.ratio(key) >= 1), key=lambda p: p.request_rate, default=self.high)
        low, high = below.request_rate, above.request_rate
        ends = below.ratio(key), above.ratio(key)
        if not high > low or not 0 < ends[0] < 1 < ends[1] < inf:
            return sqrt(self.low.request_rate * self.high.request_rate)
        share = -log(ends[0]) / (log(ends[1]) - log(ends[0]))
        return exp(log(low) + share * log(high / low))
