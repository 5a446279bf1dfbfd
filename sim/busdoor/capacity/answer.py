"""The answer for one policy, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from busdoor.capacity.bracket import Search
from busdoor.capacity.draws import NONE_REFUSED, Refused
from busdoor.capacity.estimate import Outcome, Reading
from busdoor.capacity.least import Least
from busdoor.capacity.trial import Probe
from busdoor.config import PolicyTable
from busdoor.core.format import duration_text
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE

NO_TOKENS = "an answer that is released whole has no time between tokens"


@dataclass(frozen=True)
class Answer:
    """The rates at which a policy meets the SLO: from `least` to `low`.

    Parameters
    ----------
    policy : str
        The policy's label.
    rate, low, high : float
        Requests per second: the best estimate, a rate that meets the SLO for certain, and one that
        misses it.
    binds : str
        Key of the target that is missed first; "stability" where the load reaches 1.
    saturated_rps : float
        Its maximum throughput, whatever the latencies; NaN where no run was needed.
    reason : str
        Why the rate is 0, or the bracket too wide; else empty.
    probes : tuple of Probe
        All tried rates, in order.
    least, least_misses : float
        The lowest rate known to meet the SLO, 0 where all lower ones do; the highest below it known
        to miss, 0 if none.
    refused : Refused
        Requests that only this policy refuses; they are left out.
    closed_rps : float
        Its maximum throughput in closed form.
    table : PolicyTable, optional
        The policy with its settings, where it ran.
    """

    policy: str
    rate: float
    low: float
    high: float
    binds: str
    saturated_rps: float
    reason: str
    probes: tuple[Probe, ...] = ()
    least: float = 0.0
    least_misses: float = 0.0
    refused: Refused = NONE_REFUSED
    closed_rps: float = float("nan")
    table: PolicyTable | None = None

    @property
    def at_low(self) -> Probe | None:
        """The last run at the low end."""
        return next(
            (probe for probe in reversed(self.probes) if probe.request_rate == self.low), None
        )

    @property
    def num_requests(self) -> int:
        """Requests of a replication's longest run."""
        return max((probe.num_requests for probe in self.probes if probe.window), default=0)

    def named(self, label: str) -> Answer:
        """Return the answer under another label."""
        return replace(self, policy=label)


def nothing(
    policy: str, reason: str, saturated_rps: float = float("nan"), probes: tuple[Probe, ...] = ()
) -> Answer:
    """Return the answer that no rate meets the SLO."""
    return Answer(policy, 0.0, 0.0, 0.0, "", saturated_rps, reason, probes)


def found(
    policy: str, search: Search, least: Least, saturated_rps: float, slo: SLO, advice: str
) -> Answer:
    """Return the answer of the two searches; `advice` is added where their runs were too short."""
    probes = (*search.probes, *least.probes)
    if search.low is None:
        return nothing(policy, _no_rate(search, slo, advice), saturated_rps, probes)
    if search.high is None:
        low = search.low.request_rate
        reason = f"the runs are too short to fill the server, so that no rate misses; {advice}"
        return Answer(
            policy, low, low, inf, "", saturated_rps, reason, probes, least.meets, least.misses
        )
    reasons = [] if search.decided else [_too_short(search, advice)]
    reasons += [] if least.decided else [_lowest_unsure(least)]
    binds = search.high.missed.key
    ends = search.low.request_rate, search.high.request_rate
    return Answer(
        policy,
        search.rate,
        *ends,
        binds,
        saturated_rps,
        "; ".join(reasons),
        probes,
        least.meets,
        least.misses,
    )


def _no_rate(search: Search, slo: SLO, advice: str) -> str:
    best = min(search.probes, key=lambda probe: probe.binding.ratio)
    at = f"at {best.request_rate:.3g} requests/s"
    if best.outcome is not Outcome.MISSES:
        return (
            f"runs of {best.num_requests:,} requests are too short to decide, even {at}; {advice}"
        )
    return f"its best is {describe(best.missed, slo)}, {at}"


def _lowest_unsure(least: Least) -> str:
    below = f"; it is above {least.misses:.3g}" if least.misses else ""
    return (
        f"the lowest rate that meets the SLO is known only to be at most {least.meets:.3g} "
        f"requests/s{below}"
    )


def _too_short(search: Search, advice: str) -> str:
    longest = max(probe.num_requests for probe in search.probes)
    percent = f"±{50 * search.relative_width:.2g} %"
    return f"runs of {longest:,} requests are too short for better than {percent}; {advice}"


def advice_for(fixed: bool) -> str:
    """Return the remedy for runs that are too short; a file cannot be lengthened.

    >>> advice_for(fixed=False)
    'give more --replications or a larger --num-requests, or accept that'
    """
    if fixed:
        return (
            "a file is run as it is and never lengthened: give a longer one, describe its lengths "
            "and arrivals as [workload] laws, which can be drawn at any length, or accept that"
        )
    return "give more --replications or a larger --num-requests, or accept that"


def describe(reading: Reading, slo: SLO) -> str:
    """Return a reading in words, with its limit.

    >>> import numpy as np
    >>> late = Reading("ttft_p99", np.array([0.5]), 0.01, 4.1, 2.05)
    >>> describe(late, SLO.from_table({"ttft_p99": 2.0}))
    'TTFT p99 4.1 s, over 2 s'
    """
    if reading.key == STABLE:
        return "a queue that grows without end"
    target = slo.target(reading.key)
    if reading.value == inf:
        return (
            f"{target.name} of requests that are never answered, over "
            f"{duration_text(target.limit_s)}"
        )
    if target.is_goodput:
        return (
            f"{100 * reading.value:.3g} % within the limits, under {100 * (target.share or 0):g} %"
        )
    return (
        f"{target.name} {duration_text(float(f'{reading.value:.3g}'))}, over "
        f"{duration_text(target.limit_s)}"
    )
