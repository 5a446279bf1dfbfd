"""Rows of the two tables: kernels, and the engine."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from benchmarks.gpu.timing import Ceiling


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    op, shape, implementation : str
        Operation, shape and implementation of the measurement.
    us : float
        Median time of one call in microseconds.
    gb_per_s, tflop_per_s : float
        Necessary bytes (read and written) and operations, per time of a call.
    share : float
        The larger of both, as a share of its ceiling.
    must : str
        The project's target on an H100 (references/gpu-anchors 7), if there is one.
    note : str
        Reason if something was not measured; its numbers are NaN.
    """

    op: str
    shape: str
    implementation: str
    us: float = nan
    gb_per_s: float = nan
    tflop_per_s: float = nan
    share: float = nan
    must: str = ""
    note: str = ""


def row_of(
    op: str,
    shape: str,
    by: str,
    us: float,
    num_bytes: float,
    flops: float,
    top: Ceiling,
    must: str = "",
) -> Row:
    """Return a row of a call's time, necessary bytes and operations, with its share of a ceiling."""
    gb_per_s, tflop_per_s = num_bytes / us / 1e3, flops / us / 1e6
    share = max(gb_per_s / top.gb_per_s, tflop_per_s / top.tflop_per_s)
    return Row(op, shape, by, us, gb_per_s, tflop_per_s, share, must)


@dataclass(frozen=True)
class EngineRow:
    """One measurement.

    Attributes
    ----------
    model, what, policy : str
        Model, work and policy of the measurement.
    step_ms : float
        Median time of an iteration on the host's clock.
    gap_us : float
        Median part of it in which the device was idle.
    tokens_per_s : float
        Output tokens (for a prefill: prompt tokens) per second of the counted iterations.
    busy, padding, bubbles : float
        Shares: time that the device works; computed positions that are padding; occupied slots
        without a wanted token.
    must : str
        The project's target on an H100 (references/gpu-anchors 7), if there is one.
    note : str
        Reason if something was not measured, or not completely; missing numbers are NaN.
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
    """Return the rows as a readable table."""
    lines = [
        f"{'model':13} {'what':36} {'policy':40} {'step ms':>8} {'gap us':>8} {'tokens/s':>9} "
        f"{'busy':>6} "
        f"{'padding':>8} {'bubbles':>8}  must (H100)"
    ]
    lines += [
        f"{r.model:13} {r.what:36} {r.policy:40} {r.step_ms:8.2f} {r.gap_us:8.0f} "
        f"{r.tokens_per_s:9,.0f} {r.busy:6.1%} "
        f"{r.padding:8.1%} {r.bubbles:8.1%}  {r.must}{r.note}".rstrip()
        for r in rows
    ]
    return "\n".join(lines)
