"""The race among the setups of so many servers: short runs first, more for those that are near."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from busdoor.capacity.estimate import Outcome, Reading, bounds, stability
from busdoor.capacity.steady_state import settling_requests
from busdoor.core.arrays import Floats
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE
from busdoor.metrics.statistics import paired_difference
from busdoor.recommend.space import Candidate
from busdoor.sweep.task import Record


class Stage(NamedTuple):
    """Runs of a stage.

    Replications; how many times as long as the first ones; how many candidates come so far; and
    runs with all requests there from the start, for the saturated rate, which varies little.
    """

    replications: int
    times: int = 1
    most: int = 10_000
    bursts: int = 0


# One short run of each; three of the best, with other routers; then as many as a decision takes. What
# short runs cannot tell apart, longer ones may: two come so far.
STAGES = (
    Stage(1),
    Stage(3, most=5),
    Stage(8, most=2, bursts=3),
    Stage(8, 4, 2, 3),
    Stage(8, 16, 1, 3),
)
_HOPELESS = 2.0  # times its limit in the first run: no more of them
_CAREFUL = 3  # replications from which a candidate is known to miss
_STEADY = 0.5  # of the replications: one that a slow request makes too short is no trend


@dataclass(eq=False)
class Entry:
    """A candidate and what its runs say.

    Parameters
    ----------
    candidate : Candidate
        Which it is.
    slo : SLO
        What has to be met.
    request_rate : float
        Requests per second.
    carried_rps : float
        That it carries, in closed form.
    table, key : dict and str
        Its configuration, and the name of that.
    """

    candidate: Candidate
    slo: SLO
    request_rate: float
    carried_rps: float
    table: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str = ""
    records: list[Record] = field(default_factory=list)
    bursts: list[Record] = field(default_factory=list)
    num_requests: int = 0

    def column(self, name: str) -> Floats:
        """Return a metric, one value per replication: the mean of those that it has."""
        return np.array([np.mean(record.metrics.get(name, [np.nan])) for record in self.records])

    @property
    def error(self) -> str:
        """Why it cannot run, if so."""
        return next((record.error for record in self.records if record.error), "")

    @property
    def readings(self) -> list[Reading]:
        """What each target and the stability are; with one run its parts stand for several."""
        found = []
        for target in self.slo.targets:
            key = target.key
            risks = (
                self.column(f"{key}.risk")
                if len(self.records) > 1
                else np.array(self.records[0].metrics[f"{key}.risk"])
            )
            allowed = target.limit_s if target.share is None else 1 - target.share
            value, ratio = (
                float(self.column(f"{key}.{part}").mean()) for part in ("value", "ratio")
            )
            found.append(Reading(key, risks, allowed, value, ratio))
        rates = np.array([record.metrics["saturated_rps"][0] for record in self.bursts])
        rates = rates[np.isfinite(rates)]
        return [*found, *([stability(self.request_rate, rates)] if len(rates) > 1 else [])]

    @property
    def ratio(self) -> float:
        """How much of the SLO it uses: the value of the tightest target over its limit.

        A load beyond the saturated rate counts too: its latencies grow as long as requests come.
        """
        if self.error or not self.records:
            return inf
        return max(one.ratio for one in self.readings if one.key != STABLE or one.ratio > 1)

    @property
    def outcome(self) -> Outcome:
        """Whether it meets the SLO, by the bounds on all targets."""
        if self.error:
            return Outcome.MISSES
        outcomes = {reading.outcome for reading in self.readings}
        if Outcome.MISSES in outcomes:
            return Outcome.MISSES
        unsure = Outcome.OPEN in outcomes or self.column("steady").mean() <= _STEADY
        return Outcome.OPEN if unsure or self.num_requests < self._settling else Outcome.MEETS

    @property
    def confidence(self) -> float:
        """Chance that it meets the SLO, as far as draws of the workload go.

        By Student's t for the tightest target: 0.5 where the mean is at the limit.
        """
        from scipy.stats import t

        chances = []
        for reading in self.readings:
            risks, count = reading.risks, len(reading.risks)
            error = float(risks.std(ddof=1)) / count**0.5 if count > 1 else 0.0
            room = reading.allowed - float(risks.mean())
            chances.append(float(t.cdf(room / error, count - 1)) if error > 0 else float(room >= 0))
        return min(chances)

    @property
    def ratios(self) -> Floats:
        """How much of the SLO each replication used."""
        used = [self.column(f"{target.key}.ratio") for target in self.slo.targets]
        return np.asarray(np.max(used, axis=0), dtype=float)

    def ties(self, other: Entry) -> bool:
        """Return whether draws cannot tell which of two on the same draws uses more of the SLO."""
        count = min(len(self.records), len(other.records))
        if count < 2 or self.num_requests != other.num_requests:
            return True
        apart = paired_difference(self.ratios[:count], other.ratios[:count])
        return bool(apart.low <= 0 <= apart.high)

    @property
    def _settling(self) -> float:
        servers, rate = self.candidate.replicas, self.request_rate
        load = rate / self.carried_rps
        return servers * max(
            settling_requests(load, rate / servers, target.limit_s, target.share)
            for target in self.slo.targets
        )


class Verdict(NamedTuple):
    """How a race ended: its entries, best first, and whether any meets the SLO."""

    entries: tuple[Entry, ...]
    outcome: Outcome

    @property
    def best(self) -> Entry:
        """The entry that uses least of the SLO."""
        return self.entries[0]


def race(
    entries: Sequence[Entry],
    run: Callable[[Sequence[Entry], Stage], None],
    variants: Callable[[Entry], Iterable[Entry]],
    stages: Sequence[Stage] = STAGES,
) -> Verdict:
    """Run entries until one meets the SLO for certain, or all miss it.

    Parameters
    ----------
    entries : sequence of Entry
        That cost the same.
    run : callable
        Makes the runs of a stage for some of them.
    variants : callable
        Returns entries like one of the best, with other routers or pools; they come in after the
        first stage.
    stages : sequence of Stage
        See `STAGES`.
    """
    alive, seen = list(entries), list(entries)
    for number, stage in enumerate(stages):
        plain = [one for one in alive[stage.most :] if not one.candidate.setup.fields]
        alive = alive[: stage.most]
        if stage.times == 1:  # the engine's own settings stay in the race, but for the longest runs
            alive += plain[:1]
        else:
            alive = [one for one in alive if one is alive[0] or alive[0].ties(one)]
        run(alive, stage)
        alive = sorted((one for one in alive if not one.error), key=lambda one: one.ratio)
        if not alive or (number == 0 and _hopeless(alive[0])):
            return Verdict(_ranked(seen), Outcome.MISSES)
        if number == 0:
            added = [own for own in variants(alive[0]) if own not in seen]
            seen += added
            alive = [*alive[: max(1, stages[1].most - len(added))], *added]
        if stage.replications >= _CAREFUL:
            alive = [one for one in alive if one.outcome is not Outcome.MISSES]
        if not alive:
            return Verdict(_ranked(seen), Outcome.MISSES)
        meeting = [one for one in alive if one.bursts and one.outcome is Outcome.MEETS]
        if meeting:
            simpler = partial(_preference, best=meeting[0])
            meeting.sort(key=simpler)
            rest = [one for one in _ranked(seen) if one not in meeting]
            return Verdict((*meeting, *rest), Outcome.MEETS)
    return Verdict((*alive, *(one for one in _ranked(seen) if one not in alive)), Outcome.OPEN)


def _preference(entry: Entry, best: Entry) -> tuple[bool, int, float]:
    """Order what ties with the best by how few settings it changes."""
    tied = entry is best or best.ties(entry)
    return not tied, len(entry.candidate.setup.fields), entry.ratio


def _hopeless(entry: Entry) -> bool:
    return entry.ratio > _HOPELESS and any(
        bounds(reading.risks)[0] > reading.allowed for reading in entry.readings
    )


def _ranked(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted((one for one in entries if one.records), key=lambda one: one.ratio))
