"""One row of the engine's table."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class EngineRow:
    """One measurement.

    Attributes
    ----------
    model, what, policy : str
        What ran.
    step_ms : float
        Median time of an iteration, as the host sees it.
    gap_us : float
        Median of what of it the device did not work.
    tokens_per_s : float
        Output tokens (for a prefill: prompt tokens) by the time of all iterations counted.
    busy, padding, bubbles : float
        Shares: device at work; positions computed for nobody; slots taken that make no wanted token.
    must : str
        What the project holds itself to on an H100 (references/gpu-anchors 7), if anything.
    note : str
        Why something was not measured, or not to its end; what was not measured is NaN.
    """

    model: str
    what: str
    policy: str
    step_ms: float = nan
    gap_us: float = nan
    tokens_per_s: float = nan
    busy: float = nan
    padding: float = nan
    bubbles: float = nan
    must: str = ""
    note: str = ""


def format_rows(rows: list[EngineRow]) -> str:
    """Lay the rows out as a table for people."""
    lines = [
        f"{'model':13} {'what':36} {'policy':40} {'step ms':>8} {'gap us':>8} {'tokens/s':>9} {'busy':>6} "
        f"{'padding':>8} {'bubbles':>8}  must (H100)"
    ]
    lines += [
        f"{r.model:13} {r.what:36} {r.policy:40} {r.step_ms:8.2f} {r.gap_us:8.0f} {r.tokens_per_s:9,.0f} {r.busy:6.1%} "
        f"{r.padding:8.1%} {r.bubbles:8.1%}  {r.must}{r.note}".rstrip()
        for r in rows
    ]
    return "\n".join(lines)
