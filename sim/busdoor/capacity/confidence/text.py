"""How sure an answer is, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from busdoor.capacity.confidence.rates import Belief
from busdoor.capacity.estimate import STABLE
from busdoor.core.format import duration_text
from busdoor.metrics.slo import SLO


def belief_line(name: str, known: Belief, slo: SLO, servers: float, rate: float | None) -> str:
    """Return what is known of one row: for a number of servers at a rate, or of one server."""
    if rate is None or not isfinite(servers):
        return f"{name}; {_rate_text(known, 'one server')}"
    head = f"{int(servers):,} server{'s' * (servers != 1)} with {name}"
    return f"{head}: {belief_text(known, slo, rate / servers)}"


def belief_text(known: Belief, slo: SLO, rate: float, whose: str = "one server") -> str:
    """Return how likely a rate per server meets the SLO, and what each source contributes."""
    missed = [
        f"P({_beyond(key, slo)}) = {percent(share)}" for key, share in known.missed(rate).items()
    ]
    return ", ".join([percent(known.chance(rate)), *missed, _rate_text(known, whose)])


def _rate_text(known: Belief, whose: str) -> str:
    low, high = known.interval
    widths = [
        f"{key} ±{_width(width)} ({known.said[key]})" for key, width in known.half_widths().items()
    ]
    said = f"the highest rate of {whose} is {low:.3g} to {high:.3g} requests/s (95 %)"
    return f"{said}; by source: {'; '.join(widths)}"


def percent(share: float) -> str:
    """Write a probability: never 0 or 100 % of a sample.

    >>> percent(0.97), percent(0.99999), percent(0.0)
    ('97 %', 'over 99 %', 'under 1 %')
    """
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _width(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _beyond(key: str, slo: SLO) -> str:
    if key == STABLE:
        return "a queue that grows"
    target = slo.target(key)
    if key == "goodput":
        return f"under {100 * (target.share or 0):g} % within the limits"
    return f"{target.name} > {duration_text(target.limit_s)}"


def sized_line(name: str, known: Belief, rate: float, confidence: float, servers: float) -> str:
    """Return how many servers a confidence takes."""
    least = int(servers) if isfinite(servers) else 1
    number = known.replicas(rate, confidence, least)
    if not number:
        return f"{name}: no number of servers is sure to {100 * confidence:g} %"
    return (
        f"{name}: {number:,} servers for a confidence of {100 * confidence:g} % "
        f"({percent(known.chance(rate / number))})"
    )


def next_line(table: pd.DataFrame, name: str) -> str:
    """Return the measurement that narrows the answer most."""
    first = table.iloc[0]
    return (
        f"{name}: measure next {first['request_rate']:.3g} requests/s (load {first['load']:.2f}), "
        f"lengths {first['lengths']}, for {first['seconds']:.0f} s on the server: the 95 % interval "
        f"of its highest rate narrows from ±{_width(first['before'])} to "
        f"±{_width(first['half_width'])}"
    )


def to_json(known: Mapping[str, Belief], lines: list[str]) -> dict[str, Any]:
    """Return what is known as JSON has it; `lines` are the sentences."""
    rows = {
        name: {
            "low": own.interval[0],
            "high": own.interval[1],
            "median": float(np.median(own.rates)),
            "half_widths": own.half_widths(),
            "sources": dict(own.said),
        }
        for name, own in known.items()
    }
    return {"rows": rows, "lines": lines}
