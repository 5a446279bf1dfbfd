"""What an error of the step time does: the same server at another rate, with other limits.

If all step times are longer by a factor s, the server is the same server at s times the rate, with
limits 1/s as wide: runs at several rates tell what any error does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from busdoor.core.arrays import Floats

SAMPLES = 4000  # of a law: a chance of 5 % is then known to 0.7 %
SOURCES = ("sampling", "calibration", "model")


@dataclass(frozen=True, eq=False)
class Rescaled:
    """By target, logarithms of its value over its limit, at logarithms of rates over one of them."""

    rates_log: Floats
    ratios_log: Mapping[str, Floats]

    @classmethod
    def of(cls, factors: Sequence[float], rows: Sequence[Mapping[str, float]]) -> Rescaled:
        """Return those of rows of `log_ratios`, at factors of a rate; more load helps none."""
        ratios = {
            key: np.maximum.accumulate(np.array([row[key] for row in rows])) for key in rows[0]
        }
        return cls(np.log(factors), ratios)

    def effect(self, key: str, scale_log: Floats) -> Floats:
        """Return the ratio's logarithm at the rate where step times are scaled by exp(scale).

        >>> Rescaled.of([0.5, 2.0], [{"e2e": 0.0}, {"e2e": 1.0}]).effect("e2e", np.log([1.0, 2.0]))
        array([0.5       , 1.69314718])
        """
        shifted: Floats = np.interp(scale_log, self.rates_log, self.ratios_log[key]) + scale_log
        return shifted

    def scale_of(self, key: str, ratio_log: float) -> float:
        """Return the logarithm of the scale of all step times that has the effect on a target."""
        scales = np.linspace(-0.7, 0.7, 281)  # a factor of two either way, in steps of 0.5 %
        return float(np.interp(ratio_log, self.effect(key, scales), scales))

    def scales(
        self, own: Mapping[str, float], drawn: Sequence[Mapping[str, float]]
    ) -> dict[str, Floats]:
        """Return by target the scales that draws of the step time amount to; zero without any.

        `own` is the row of the step time itself.
        """
        return {
            key: np.array([self.scale_of(key, row[key]) for row in drawn])
            - self.scale_of(key, ratio)
            if drawn
            else np.zeros(1)
            for key, ratio in own.items()
        }


def log_ratios(ratios: Mapping[str, float]) -> dict[str, float]:
    """Return logarithms of values over limits, those of 0 and infinity in reach.

    >>> log_ratios({"ttft_p99": 1.0, "e2e_mean": float("inf")})
    {'ttft_p99': 0.0, 'e2e_mean': 20.7...}
    """
    known = {key: min(max(own, 1e-9), 1e9) for key, own in ratios.items()}
    return {key: log(own) if own == own else -20.0 for key, own in known.items()}


def half_width(samples: Floats) -> float:
    """Return half the 95 % interval of samples, over their middle."""
    low, middle, high = np.percentile(samples, [2.5, 50, 97.5])
    return float((high - low) / 2 / middle)
