"""Where between two rates an SLO is just met, as far as the rates that were tried tell."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, sqrt

from busdoor.capacity.trial import Probe

_LONG = 4  # runs of a quarter of the longest still tell where the answer lies; much shorter ones only scatter


def crossing_rps(probes: Sequence[Probe], low_rps: float, high_rps: float) -> float:
    """Return the lowest rate between two at which a target would reach its limit; their middle where none is known."""
    keys = {reading.key for probe in probes for reading in probe.readings}
    rates = [rate for key in sorted(keys) if (rate := _crossing_of(key, probes, low_rps, high_rps)) is not None]
    return min(rates) if rates else sqrt(low_rps * high_rps)


def _crossing_of(key: str, probes: Sequence[Probe], low_rps: float, high_rps: float) -> float | None:
    """Return where one target would reach its limit; by the longer runs if these can tell, else by all."""
    inside = [p for p in probes if low_rps <= p.request_rate <= high_rps and 0 < p.ratio(key) < inf]
    longest = max((probe.num_requests for probe in inside), default=0)
    longer = [probe for probe in inside if _LONG * probe.num_requests >= longest]
    rate = _interpolated(longer, key)
    return _interpolated(inside, key) if rate is None else rate


def _interpolated(probes: Sequence[Probe], key: str) -> float | None:
    """Return where a ratio is 1, on a line in logarithms between the rates next to it; the last run of each counts."""
    known = sorted({probe.request_rate: probe.ratio(key) for probe in probes}.items())
    above = next((point for point in known if point[1] >= 1), None)
    below = [point for point in known if above and point[0] < above[0]]
    if above is None or not below:
        return None
    (low, under), (high, over) = below[-1], above
    share = -log(under) / (log(over) - log(under))
    return exp(log(low) + share * log(high / low))
