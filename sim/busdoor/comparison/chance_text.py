"""Probabilities and what they rest on, in words."""

from __future__ import annotations

from collections.abc import Mapping

from busdoor.core.format import NOTHING, duration_text
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE


def percent(share: float) -> str:
    """Write a probability: never 0 or 100 % of a sample.

    >>> percent(0.97), percent(0.99999), percent(0.0), percent(float("nan"))
    ('97 %', 'over 99 %', 'under 1 %', '–')
    """
    if share != share:
        return NOTHING
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def missed_text(missed: Mapping[str, float], slo: SLO) -> str:
    """Return how likely each target is missed.

    >>> missed_text({"ttft_p99": 0.03, "stability": 0.0}, SLO.from_table({"ttft_p99": "2s"}))
    'P(TTFT p99 > 2 s) = 3 %, P(a queue that grows) = under 1 %'
    """
    return ", ".join(f"P({_beyond(key, slo)}) = {percent(share)}" for key, share in missed.items())


def sources_text(half_widths: Mapping[str, float], said: Mapping[str, str]) -> str:
    """Return what each source contributes, and what says so.

    >>> sources_text({"model": 0.134}, {"model": "3 validated runs at 0.8–1"})
    'by source: model ±13 % (3 validated runs at 0.8–1)'
    """
    parts = [f"{key} ±{width_text(own)} ({said[key]})" for key, own in half_widths.items()]
    return f"by source: {'; '.join(parts)}"


def width_text(share: float) -> str:
    """Write half an interval's width."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _beyond(key: str, slo: SLO) -> str:
    if key == STABLE:
        return "a queue that grows"
    target = slo.target(key)
    if target.is_goodput:
        return f"under {100 * (target.share or 0):g} % within the limits"
    return f"{target.name} > {duration_text(target.limit_s)}"
