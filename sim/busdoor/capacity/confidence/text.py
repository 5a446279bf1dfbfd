"""How sure an answer is, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from busdoor.capacity.confidence.rates import Belief
from busdoor.comparison.chance_text import missed_text, percent, sources_text, width_text
from busdoor.metrics.slo import SLO


def belief_line(name: str, known: Belief, slo: SLO, servers: float, rate: float | None) -> str:
    """Return what is known of one row: for a number of servers at a rate, or of one server."""
    if rate is None or not isfinite(servers):
        return f"{name}; {_rate_text(known, 'one server')}"
    head = f"{int(servers):,} server{'s' * (servers != 1)} with {name}"
    return f"{head}: {belief_text(known, slo, rate / servers)}"


def belief_text(known: Belief, slo: SLO, rate: float, whose: str = "one server") -> str:
    """Return how likely a rate per server meets the SLO, and what each source contributes."""
    chance, missed = percent(known.chance(rate)), missed_text(known.missed(rate), slo)
    return f"{chance}, {missed}, {_rate_text(known, whose)}"


def _rate_text(known: Belief, whose: str) -> str:
    low, high = known.interval
    said = f"the highest rate of {whose} is {low:.3g} to {high:.3g} requests/s (95 %)"
    return f"{said}; {sources_text(known.half_widths(), known.said)}"


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
        f"of its highest rate narrows from ±{width_text(first['before'])} to "
        f"±{width_text(first['half_width'])}"
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
