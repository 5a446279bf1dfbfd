"""The lowest rate that meets an SLO: batches that fill too slowly miss it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import NamedTuple

from busdoor.capacity.bracket import LEAST_SHARE, Search, Try
from busdoor.capacity.estimate import Outcome, Reading
from busdoor.capacity.trial import Probe
from busdoor.policies.base import Policy

# half of the bracket's width, as a share of its middle: at least that, since little depends on it
TOLERANCE = 0.05
# arrivals within the longest wait for others: with fewer, nearly every request leaves by itself
_ALONE = 0.1
_LOW_SHARE = 1 / 64  # of the highest rate: where requests that wait for no others hardly meet any
# between rates, going down: a batch that leaves after a while may be slowest in between
_STRIDE = 2.0
_LONG_STRIDE = 4.0  # where latencies only get longer on the way down


class Least(NamedTuple):
    """The low end of the rates that meet an SLO.

    `meets` is the lowest rate that is known to meet, 0 where all lower ones do; `misses` the
    highest below it that is known to miss, 0 where none was found; `decided` whether they are near
    enough to each other.
    """

    meets: float
    misses: float = 0.0
    decided: bool = True
    probes: tuple[Probe, ...] = ()


def fills(policy: Policy) -> bool:
    """Return whether a request may wait for others before it runs."""
    return policy.whole_batch and policy.num_slots > 1 and _longest_wait_s(policy) > 0


def find_least(
    policy: Policy,
    lone: Sequence[Reading],
    attempt: Try,
    met: Probe,
    tolerance: float,
    max_doublings: int,
) -> Least:
    """Find the lowest rate that meets, below one (`met`) that does.

    It is the search for the highest one, on the mean gap between requests in place of the rate:
    decided by the same bounds, by runs that are lengthened in the same way (see `Search`). Where
    requests wait for no others and lone ones are within all limits, every lower rate meets, and
    nothing is run.
    """
    if not fills(policy) and all(reading.outcome is Outcome.MEETS for reading in lone):
        return Least(0.0)
    wait_s = _longest_wait_s(policy) if fills(policy) else 0.0
    endless = not isfinite(wait_s)
    lowest = (
        met.request_rate * (LEAST_SHARE if endless else _LOW_SHARE)
        if not wait_s or endless
        else _ALONE / wait_s
    )

    def slower(gap_s: float, doublings: int) -> Probe:
        return _turned(attempt(1 / gap_s, doublings))

    search = Search(slower, 1 / lowest, max(tolerance, TOLERANCE), max_doublings)
    search.climb(_turned(met), _STRIDE if wait_s and not endless else _LONG_STRIDE)
    return _read(search, endless)


def _read(search: Search, endless: bool) -> Least:
    assert search.low is not None
    probes = tuple(_turned(probe) for probe in search.probes)
    slowest = max(search.probes, key=lambda probe: probe.request_rate, default=search.low)
    if search.high is None and not endless and slowest.outcome is Outcome.MEETS:
        return Least(0.0, probes=probes)
    misses = 1 / search.high.request_rate if search.high else 0.0
    return Least(1 / search.low.request_rate, misses, search.decided, probes)


def _turned(probe: Probe) -> Probe:
    """Turn a rate into a gap, or a gap into a rate."""
    return replace(probe, request_rate=1 / probe.request_rate)


def _longest_wait_s(policy: Policy) -> float:
    return float(getattr(policy, "max_wait_s", inf))
