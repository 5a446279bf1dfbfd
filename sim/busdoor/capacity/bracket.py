"""Bracketing the highest rate that meets an SLO, where a rate that was tried may stay open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, count
from math import ceil, inf, log, log2

from busdoor.capacity.trial import Probe, crossing_rps

# a rate in requests/s, and how often the requests have been doubled
Try = Callable[[float, int], Probe]

# Shares of the maximum throughput at which a search goes down: first in small steps, since whole
# batches may meet an SLO only close to it, then in halves.
_DOWN = (0.95, 0.85, 0.7, 0.5, 0.35)
LEAST_SHARE = 1e-4  # of the maximum throughput: lower rates are useless
_HIGHEST_SHARE = 2.0  # of it: a run that meets there is too short to fill the server
_HOPELESS = 1.5  # times the limit at the best rate: no rate near it meets
_LOOKS = 2  # rounds, each halving the steps beside the best rate
_WORSE = 2  # steps down in a row with worse latencies: a batch that fills ever more slowly
_EFFORT = 120  # times the first run's requests: the most that lengthening may cost
_STRIDE = 2  # doublings at once: a short run's estimate of the missing length is rough
_ASIDE = 0.8  # of the tolerance: the least distance of a tried rate from the expected answer
_OPEN = 2  # rates that may stay open at one length of run: then longer runs pay
_JUST = 0.9996  # of the widest bracket that will do: rounding must not make it too wide
_EDGE = 0.1  # of the bracket: nearer to its ends no rate is tried


@dataclass
class Search:
    """A search for a low rate that meets and a high one that misses, as close as `tolerance`.

    `attempt` runs a rate with the requests doubled so many times, at most `max_doublings` where a
    run is too short to decide. `ceiling_rps` is about the server's maximum throughput; the search
    begins below `begin_rps` (default: the ceiling) and tries no rate under `least_rps`. `tolerance`
    is half of the bracket's width, as a share of the answer. `probes` are all tried rates, in
    order; `low` is the highest known to meet, `high` the lowest above it known to miss.
    """

    attempt: Try
    ceiling_rps: float
    tolerance: float
    max_doublings: int
    least_rps: float = 0.0
    begin_rps: float | None = None
    probes: list[Probe] = field(default_factory=list)
    low: Probe | None = None
    high: Probe | None = None
    doublings: int = 0
    _since: int = field(default=0, init=False)  # the first run of the present length

    def run(self) -> None:
        """Bracket the answer, then narrow the bracket; `low` stays None if no rate meets."""
        self._descend()
        if self.low is not None:
            step = 1 + 2 * self.tolerance
            begin = max(self.low.request_rate * step, self._begin)
            self._ascend(begin, step, _HIGHEST_SHARE * self.ceiling_rps)

    def climb(self, met: Probe, stride: float) -> None:
        """Go up from a rate that meets, by a factor at a time up to the ceiling, then narrow."""
        self.low = met
        self._ascend(met.request_rate * stride, stride, self.ceiling_rps)

    @property
    def _begin(self) -> float:
        return min(self.begin_rps or self.ceiling_rps, self.ceiling_rps)

    @property
    def decided(self) -> bool:
        """Whether the bracket is as narrow as it should be."""
        return self.low is not None and self.high is not None and self._width <= self._wanted

    @property
    def relative_width(self) -> float:
        """The bracket's width as a share of its middle: twice the answer's tolerance."""
        return 2 * (self._width - 1) / (self._width + 1)

    @property
    def rate(self) -> float:
        """The best estimate: where the binding target is just met; 0 if no rate meets.

        It is never the rate that misses.
        """
        if self.low is None:
            return 0.0
        if self.high is None:
            return self.low.request_rate
        return min(self._crossing(), float(self.high.request_rate / self._width**_EDGE))

    def _try(self, request_rate: float) -> Probe:
        probe = self.attempt(request_rate, self.doublings)
        self.probes.append(probe)
        low, high = self.low, self.high
        if probe.meets and (low is None or request_rate > low.request_rate):
            self.low = probe
        if probe.misses and (high is None or request_rate < high.request_rate):
            self.high = probe
        return probe

    def _descend(self) -> None:
        """Go down from the ceiling until a rate meets, or latencies only get worse."""
        worse, before, least = 0, inf, max(self.least_rps, LEAST_SHARE * self.ceiling_rps)
        for share in chain(_DOWN, (_DOWN[-1] / 2**n for n in count(1))):
            if share * self._begin < least or worse == _WORSE:
                break
            ratio = self._try(share * self._begin).binding.ratio
            if self.low is not None:
                return
            worse, before = (worse + 1 if ratio > before else 0), ratio
        self._look_around()
        self._lengthen()

    def _lengthen(self) -> None:
        """Try open rates again with longer runs, from the highest down."""
        while self.low is None and self.doublings < self.max_doublings:
            last = {probe.request_rate: probe.is_open for probe in self.probes}
            still_open = sorted((rate for rate, is_open in last.items() if is_open), reverse=True)
            if not still_open:
                return
            self.doublings += 1
            self._since = len(self.probes)
            for rate in still_open:
                if self.low is None:
                    self._try(rate)

    def _look_around(self) -> None:
        """Try the rates beside the best one so far."""
        for _ in range(_LOOKS):
            rates = sorted({probe.request_rate for probe in self.probes})
            best = min(self.probes, key=lambda probe: probe.binding.ratio, default=None)
            if best is None or best.binding.ratio > _HOPELESS:
                return
            place = rates.index(best.request_rate)
            for neighbour in (*rates[place + 1 : place + 2], *rates[max(0, place - 1) : place]):
                if self.low is None:
                    self._try((neighbour * best.request_rate) ** 0.5)

    def _ascend(self, rate: float, step: float, most: float) -> None:
        """Go up to a rate that misses, then narrow; only the first may lack one above it."""
        assert self.low is not None
        low_rps = self.low.request_rate
        above = [probe for probe in self.probes if probe.misses and probe.request_rate > low_rps]
        self.high = min(above, key=lambda probe: probe.request_rate, default=None)
        while self.high is None and rate < most:
            self._try(rate)
            rate *= step
        if self.high is not None:
            self._narrow()

    def _narrow(self) -> None:
        """Try rates beside the expected answer; if one stays open, flank it, then lengthen."""
        while not self.decided:
            aims = self._aims()
            still_open = [probe for probe in self._present if probe.is_open]
            stuck = [probe for aim in aims if (probe := self._tried(aim))]
            short = next((probe for probe in stuck if probe.unsettled), None)
            if short is None and len(still_open) < _OPEN and len(stuck) < len(aims):
                self._try(next(aim for aim in aims if self._tried(aim) is None))
            elif short is None and len(still_open) < _OPEN and self._flank(stuck[0].request_rate):
                continue
            elif not self._longer(short or (stuck or still_open)[-1]):
                return

    def _tried(self, request_rate: float) -> Probe | None:
        """Return the run of the present length near a rate, if any: another one is not worth it."""
        apart = ((abs(log(probe.request_rate / request_rate)), probe) for probe in self._present)
        return next((probe for off, probe in apart if off < self.tolerance / 4), None)

    @property
    def _present(self) -> list[Probe]:
        """Runs of the present length."""
        return self.probes[self._since :]

    def _flank(self, open_rps: float) -> bool:
        """Try halfway between an open rate and a far end; return whether one was left to try."""
        for end in (self.low, self.high):
            assert end is not None
            ratio = max(end.request_rate / open_rps, open_rps / end.request_rate)
            halfway = (end.request_rate * open_rps) ** 0.5
            if ratio > self._wanted and self._tried(halfway) is None:
                self._try(halfway)
                return True
        return False

    def _longer(self, probe: Probe) -> bool:
        """Double the requests as often as a run needs to decide; return whether that is allowed.

        It is allowed within `_EFFORT`, for a run of that length at either side of the answer.
        """
        most = self.max_doublings if probe.unsettled else _STRIDE
        lacking = ceil(log2(min(max(2, probe.shortage), 2**most)))
        steps = min(lacking, self.max_doublings - self.doublings)
        spent = sum(probe.num_requests for probe in self.probes if probe.window)
        first = self.probes[0].num_requests
        while steps > 0 and spent + (first << self.doublings + steps) > _EFFORT * first:
            steps -= 1
        self.doublings += max(0, steps)
        self._since = len(self.probes)
        return steps > 0

    @property
    def _wanted(self) -> float:
        return (1 + self.tolerance) / (1 - self.tolerance)

    @property
    def _width(self) -> float:
        assert self.low is not None and self.high is not None
        return self.high.request_rate / self.low.request_rate

    def _aims(self) -> list[float]:
        """Return the rates to try next: those that close the bracket, far from the answer.

        Far from it a short run decides. If neither end is near enough, one rate moves the further
        end and another the nearer one.
        """
        assert self.low is not None and self.high is not None
        low, high, middle = self.low.request_rate, self.high.request_rate, self._crossing()
        reach = self._wanted * _JUST
        above, below = low * reach, high / reach
        if max(above / middle, middle / below) > 1 + _ASIDE * self.tolerance:
            return [above if above / middle > middle / below else below]
        step = 1 + self.tolerance
        sides = sorted((middle / step, middle * step), reverse=middle / low <= high / middle)
        edge = self._width**_EDGE
        return [min(max(aside, low * edge), high / edge) for aside in sides]

    def _crossing(self) -> float:
        assert self.low is not None and self.high is not None
        return crossing_rps(self.probes, self.low.request_rate, self.high.request_rate)
