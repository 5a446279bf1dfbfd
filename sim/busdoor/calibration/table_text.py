"""What `busdoor calibrate` shows in the terminal."""

from __future__ import annotations

from typing import Any

from busdoor.calibration import Calibration

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def _subject(about: Any) -> str:
    parts = [about.get(key) for key in ("model", "gpu", "dtype")]
    runs = f"fitted to {', '.join(map(str, about.get('runs', [])))}"
    return "; ".join([*map(str, filter(None, parts)), runs])


def _terms(calibration: Calibration) -> list[tuple[str, float, list[float]]]:
    """Terms that are not 0 or have an interval: name, value, ends."""
    described, rows = calibration.step_time.describe(), []
    breaks = [0, *described["token_breaks"]]
    for term, value in described.items():
        interval = calibration.intervals.get(term, [])
        if term == "per_token_s":
            for i, own in enumerate(value):
                label = term if len(value) == 1 else f"{term}, beyond {breaks[i]}"
                rows.append((label, float(own), interval[i] if interval else []))
        elif term.endswith("_s") and (value or interval):
            rows.append((term, float(value), interval))
    return rows


def short_seconds(seconds: float) -> str:
    """Write a coefficient in the unit that suits it.

    Examples
    --------
    >>> short_seconds(0.0049), short_seconds(1.2e-7), short_seconds(0.0)
    ('4.9 ms', '120 ns', '0')
    """
    for unit, name in _UNITS:
        if seconds >= 0.9995 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-9:.2g} ns" if seconds else "0"
