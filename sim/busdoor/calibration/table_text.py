"""What `busdoor calibrate` shows in the terminal: rows of plain strings."""

from __future__ import annotations

from collections.abc import Iterator

from busdoor.calibration import Calibration
from busdoor.core.format import as_percent, as_share
from busdoor.step_time.scaled_roofline import ScaledRooflineStepTime
from busdoor.step_time.terms import TERMS

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))

_NOISE = {
    "repeatability": "noise between like iterations",
    "drift": "drift between parts of the log",
}
_DOUBTS = {
    "not_identified": "These rates do not distinguish from 0",
    "hidden": "Requests never show",
    "doubts": "Written by --force although",
}


def subject(calibration: Calibration) -> str:
    """Return what was measured, and which runs it was fitted to."""
    about = calibration.about
    parts = [str(about[key]) for key in ("model", "gpu", "dtype") if about.get(key)]
    return "; ".join([*parts, f"fitted to {', '.join(map(str, about.get('runs', [])))}"])


def term_rows(calibration: Calibration) -> list[tuple[str, list[str]]]:
    """Return a row per term that is not 0 or has an interval: name, value and interval."""
    rows: list[tuple[str, list[str]]] = []
    if isinstance(calibration.step_time, ScaledRooflineStepTime):
        return scale_rows(calibration, calibration.step_time)
    for term in TERMS:
        value = getattr(calibration.step_time, term.name)
        interval = calibration.intervals.get(term.name, [])
        if term.segmented:
            starts = [0, *calibration.step_time.token_breaks]
            for start, own, ends in zip(starts, value, interval or [[]] * len(value), strict=True):
                label = term.name if len(value) == 1 else f"{term.name}, beyond {start}"
                rows.append((label, _cells(own, ends)))
        elif value or interval:
            rows.append((term.name, _cells(value, interval)))
    return rows


def scale_rows(
    calibration: Calibration, step_time: ScaledRooflineStepTime
) -> list[tuple[str, list[str]]]:
    """Return a row per scale, and one of the host's seconds per request."""
    rows = []
    for name in ("gemm_scale", "memory_scale"):
        ends = calibration.intervals.get(name, [])
        rows.append(
            (name, [f"{getattr(step_time, name):.3f}", " – ".join(f"{end:.3f}" for end in ends)])
        )
    request_s = step_time.host_s[1]
    return [
        *rows,
        (
            "request_overhead_s",
            _cells(request_s, calibration.intervals.get("request_overhead_s", [])),
        ),
    ]


def _cells(value: float, interval: list[float]) -> list[str]:
    return [short_seconds(float(value)), " – ".join(map(short_seconds, interval))]


def error_lines(calibration: Calibration) -> Iterator[str]:
    """Return a line per error of the fit, and per noise of the measurement."""
    for title, value in calibration.errors.items():
        shown = as_percent(value) if "total" in title or "mean_t" in title else as_share(value)
        yield f"{title.replace('_', ' ')}: {shown}"
    for key, what in _NOISE.items():
        if key in calibration.about:
            yield f"{what}, which no model predicts: {as_share(calibration.about[key])}"


def doubt_lines(calibration: Calibration) -> Iterator[str]:
    """Return a line per thing that was not measured, or not identified."""
    about = calibration.about
    if "transferred_from" in about:
        yield f"Transferred from {about['transferred_from']}: nothing was measured here."
    for key, what in _DOUBTS.items():
        if about.get(key):
            yield f"{what}: {', '.join(about[key])}."


def short_seconds(seconds: float) -> str:
    """Write a coefficient in the unit that suits it.

    >>> short_seconds(0.0049), short_seconds(1.2e-7), short_seconds(0.0)
    ('4.9 ms', '120 ns', '0')
    """
    for unit, name in _UNITS:
        if seconds >= 0.9995 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-9:.2g} ns" if seconds else "0"
