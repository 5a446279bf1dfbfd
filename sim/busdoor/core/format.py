"""Numbers as tables and pictures write them."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np


def duration_text(seconds: float, _: object = None) -> str:
    """Write a duration with the unit that fits it.

    >>> duration_text(0.0005), duration_text(0.25), duration_text(30), duration_text(600)
    ('500 µs', '250 ms', '30 s', '600 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= 0.999 * size:
            return f"{seconds / size:,.4g} {unit}"
    return f"{seconds / 1e-6:,.4g} µs"


NOTHING = "–"

LATENCIES = {"TTFT": "ttft", "TPOT": "tpot", "E2E": "e2el"}


def number(value: float) -> str:
    """Write a number with three digits or more.

    >>> number(4.0), number(12345.6), number(3.14159), number(float("nan"))
    ('4', '12,346', '3.14', '–')
    """
    if isnan(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def duration(milliseconds: float) -> str:
    """Write a duration in the unit that suits it.

    >>> duration(0.5), duration(34.6), duration(1590), duration(255742)
    ('0.5 ms', '35 ms', '1.6 s', '4.3 min')
    """
    if isnan(milliseconds):
        return NOTHING
    for unit, size in (("h", 3.6e6), ("min", 1.2e5), ("s", 1e3)):
        if milliseconds >= size:
            per = {"h": 3.6e6, "min": 6e4, "s": 1e3}[unit]
            return f"{milliseconds / per:.1f} {unit}"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def percent(share: float, digits: int = 1) -> str:
    """Write a share in per cent.

    >>> percent(0.3061), percent(0.0)
    ('30.6 %', '0 %')
    """
    if isnan(share):
        return NOTHING
    return "0 %" if share == 0 else f"{100 * share:.{digits}f} %"


def as_percent(value: Any) -> str:
    """Write a relative error in per cent, with its sign.

    >>> as_percent(0.0123), as_percent(-0.5), as_percent(float("nan"))
    ('+1.2 %', '-50.0 %', '–')
    """
    return "–" if value is None or np.isnan(value) else f"{100 * value:+.1f} %"


def as_share(value: float) -> str:
    """Write what has no sign in per cent.

    >>> as_share(0.181), as_share(float("nan"))
    ('18.1 %', '–')
    """
    return as_percent(value).lstrip("+")
