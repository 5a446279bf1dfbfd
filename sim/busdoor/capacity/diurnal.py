"""How the rate changes over a day: a ratio of peak to trough, or a table of hourly rates."""

from __future__ import annotations

import csv
from math import cos, isfinite, pi
from pathlib import Path

HOURS = 24
_PEAK_HOUR = 14  # early afternoon; it moves the curve, not what has to be bought


def hourly_rates(spec: str, peak_rps: float | None = None) -> list[float]:
    """Read `--diurnal`.

    Parameters
    ----------
    spec : str
        A ratio of peak to trough, 1 or more; rates in requests per second with commas between them; or a CSV file with
        one rate a row, in a column `request_rate` if it has several.
    peak_rps : float, optional
        The highest rate of the day; needed for a ratio. A table is taken as it is.

    Returns
    -------
    list of float
        Requests per second by hour from midnight.

    Raises
    ------
    ValueError
        One sentence that names the value and what would be right.

    Examples
    --------
    >>> rates = hourly_rates("4", peak_rps=40)
    >>> len(rates), rates[14], rates[2]
    (24, 40.0, 10.0)
    >>> hourly_rates("10, 20,40")
    [10.0, 20.0, 40.0]
    """
    if Path(spec).is_file():
        return _checked(_column(Path(spec)), spec)
    rates = _checked(spec.split(","), spec)
    return rates if len(rates) > 1 else daily_wave(rates[0], peak_rps)


def daily_wave(peak_to_trough: float, peak_rps: float | None) -> list[float]:
    """Return a cosine wave by hour, from the trough at night to the peak in the afternoon."""
    if peak_rps is None:
        raise ValueError(f"--diurnal {peak_to_trough:g} is a ratio of peak to trough; give the peak's rate, --rate")
    if peak_to_trough < 1:
        raise ValueError(f"--diurnal {peak_to_trough:g}: the ratio of peak to trough has to be 1 or more")
    trough_rps = peak_rps / peak_to_trough
    waves = [(1 + cos(2 * pi * (hour - _PEAK_HOUR) / HOURS)) / 2 for hour in range(HOURS)]
    return [trough_rps + (peak_rps - trough_rps) * wave for wave in waves]


def _column(path: Path) -> list[str]:
    rows = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
    if not rows:
        raise ValueError(f"{path} is empty; it has to have a rate in requests per second in each row")
    header = [cell.strip() for cell in rows[0]]
    if "request_rate" in header:
        return [row[header.index("request_rate")] for row in rows[1:]]
    if len(header) > 1:
        raise ValueError(f"{path} has the columns {', '.join(header)}; one of them has to be request_rate")
    return [row[0] for row in rows]


def _checked(texts: list[str], spec: str) -> list[float]:
    rates = []
    for text in texts:
        try:
            rate = float(text)
        except ValueError:
            rate = float("nan")
        if not (isfinite(rate) and rate > 0):
            raise ValueError(
                f"--diurnal {spec}: {text.strip()!r} is neither a file nor a rate in requests per second above 0"
            )
        rates.append(rate)
    return rates
