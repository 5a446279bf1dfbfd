"""The trial of one rate: all targets together, and whether the runs were long enough to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np

from busdoor.capacity.control.stand_in import StandIn
from busdoor.capacity.estimate import Outcome, Reading, readings
from busdoor.capacity.runs import Sample
from busdoor.capacity.steady_state import Window, settling_requests, steady_window
from busdoor.metrics.slo_target import Target


@dataclass(frozen=True)
class Probe:
    """The trial of one rate, with as many requests in each replication.

    `readings` are of every target, in the measured `window`; None if nothing ran. `settling`:
    requests that a queue under this load takes to settle, where it may come near a limit.
    """

    request_rate: float
    num_requests: int
    readings: tuple[Reading, ...]
    window: Window | None
    settling: float = 0.0

    @cached_property
    def outcome(self) -> Outcome:
        """All targets together; a run without a steady window or too short cannot meet an SLO.

        It begins empty and ends empty, so that its latencies are too short if anything: it can only
        miss one.
        """
        outcomes = {reading.outcome for reading in self.readings}
        if Outcome.MISSES in outcomes:
            return Outcome.MISSES
        unsure = self.window is not None and not (
            self.window.steady and self.num_requests >= self.settling
        )
        return Outcome.OPEN if Outcome.OPEN in outcomes or unsure else Outcome.MEETS

    @property
    def meets(self) -> bool:
        """Whether the SLO is met for certain."""
        return self.outcome is Outcome.MEETS

    @property
    def misses(self) -> bool:
        """Whether the SLO is missed for certain."""
        return self.outcome is Outcome.MISSES

    @property
    def is_open(self) -> bool:
        """Whether the SLO may be met or missed."""
        return self.outcome is Outcome.OPEN

    @property
    def unsettled(self) -> bool:
        """Whether all targets are met, but the run is too short for that to count."""
        return self.is_open and all(reading.outcome is Outcome.MEETS for reading in self.readings)

    @property
    def shortage(self) -> float:
        """By what factor more requests would decide, as this run estimates it; 1 if it decided."""
        blurs = [reading.blur for reading in self.readings if reading.outcome is Outcome.OPEN]
        steady = 1.0 if self.window is None or self.window.steady else 2.0
        return max(1.0, steady, self.settling / self.num_requests, max(blurs, default=1.0) ** 2)

    @property
    def binding(self) -> Reading:
        """The target that is nearest to its limit, or furthest beyond it."""
        return max(self.readings, key=lambda reading: reading.ratio)

    @property
    def missed(self) -> Reading:
        """Of the targets that are missed for certain, the one furthest beyond its limit."""
        return max(
            (r for r in self.readings if r.outcome is Outcome.MISSES),
            key=lambda reading: reading.ratio,
        )

    def ratio(self, key: str) -> float:
        """Value over limit of one target; NaN where it was not measured."""
        return next(
            (reading.ratio for reading in self.readings if reading.key == key), float("nan")
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per replication for the history."""
        window = self.window
        shared = {
            "request_rate": self.request_rate,
            "num_requests": self.num_requests,
            "outcome": str(self.outcome),
            "warmup_share": np.nan if window is None else window.begin / self.num_requests,
            "drain_share": np.nan if window is None else 1 - window.end / self.num_requests,
            "steady": window is not None and window.steady,
        }
        count = max(len(reading.risks) for reading in self.readings)
        columns = {reading.key: reading.risks for reading in self.readings}
        columns |= {f"{r.key}_control": r.control.values for r in self.readings if r.control}
        return [
            {**shared, "replication": number}
            | {name: column[number] for name, column in columns.items() if number < len(column)}
            for number in range(count)
        ]


def probe(
    request_rate: float,
    samples: Sequence[Sample],
    targets: Sequence[Target],
    load: Reading,
    stand_in: StandIn | None = None,
    servers: int = 1,
) -> Probe:
    """Measure all targets in the steady window of the replications.

    A single sample is cut into ten parts that stand for replications (batch means). `load` is
    without risks where it is unknown; `stand_in` shows how lucky the draws were.
    """
    length = min(len(sample.arrival_s) for sample in samples)
    window = steady_window(
        np.stack([sample.latencies_s["e2e"].to_numpy()[:length] for sample in samples]),
        request_rate,
    )
    read = readings(samples, targets, window)
    if stand_in:
        ratios = [reading.ratio for reading in read]
        read = readings(
            samples,
            targets,
            window,
            stand_in.controls(targets, ratios, request_rate, length, window),
        )
    settling = servers * max(
        settling_requests(load.value, request_rate / servers, target.limit_s, target.share)
        for target in targets
    )
    return Probe(
        request_rate, length, (*read, *([load] if len(load.risks) else [])), window, settling
    )


# runs of a quarter of the longest still locate the answer; much shorter ones only scatter
_LONG = 4


def crossing_rps(probes: Sequence[Probe], low_rps: float, high_rps: float) -> float:
    """Return the lowest rate between two at which a target reaches its limit, or their middle."""
    keys = {reading.key for probe in probes for reading in probe.readings}
    rates = [
        rate
        for key in sorted(keys)
        if (rate := _crossing_of(key, probes, low_rps, high_rps)) is not None
    ]
    return min(rates) if rates else sqrt(low_rps * high_rps)


def _crossing_of(
    key: str, probes: Sequence[Probe], low_rps: float, high_rps: float
) -> float | None:
    """Return where a target reaches its limit; by the longer runs if possible, else by all."""
    inside = [p for p in probes if low_rps <= p.request_rate <= high_rps and 0 < p.ratio(key) < inf]
    longest = max((probe.num_requests for probe in inside), default=0)
    longer = [probe for probe in inside if _LONG * probe.num_requests >= longest]
    rate = _interpolated(longer, key)
    return _interpolated(inside, key) if rate is None else rate


def _interpolated(probes: Sequence[Probe], key: str) -> float | None:
    """Return where a ratio is 1, by log-linear interpolation; the last run of each rate counts."""
    known = sorted({probe.request_rate: probe.ratio(key) for probe in probes}.items())
    above = next((point for point in known if point[1] >= 1), None)
    below = [point for point in known if above and point[0] < above[0]]
    if above is None or not below:
        return None
    (low, under), (high, over) = below[-1], above
    share = -log(under) / (log(over) - log(under))
    return exp(log(low) + share * log(high / low))
