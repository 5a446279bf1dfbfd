"""How the rate changes over a day: a ratio of peak to trough, or a table of hourly rates."""

from __future__ import annotations

import csv
from math import cos, isfinite, pi
from pathlib import Path

HOURS = 24
_PEAK_HOUR = 14  # early afternoon; it shifts the curve, not the number of servers


def hourly_rates(spec: str, peak_rps: float | None = None) -> list[float]:
    """Return hourly rates as `--diurnal` gives them.

    Parameters
    ----------
    spec : str
        A ratio of peak to trough, 1 or more; rates in requests per second with commas between them;
        or a CSV file with one rate per row, in a column `request_rate` if it has a header. Its rows
        are put in order of a column `hour`, if there is one.
    peak_rps : float, optional
        The highest rate of the day; needed for a ratio. A table is not scaled.

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
        raise ValueError(
            f"--diurnal {peak_to_trough:g} is a ratio of peak to trough; give the peak's rate, "
            f"--rate"
        )
    if peak_to_trough < 1:
        raise ValueError(
            f"--diurnal {peak_to_trough:g}: the ratio of peak to trough must be 1 or more"
        )
    trough_rps = peak_rps / peak_to_trough
    waves = [(1 + cos(2 * pi * (hour - _PEAK_HOUR) / HOURS)) / 2 for hour in range(HOURS)]
    return [trough_rps + (peak_rps - trough_rps) * wave for wave in waves]


def _column(path: Path) -> list[str]:
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text"
        ) from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if len(rows) <= ("request_rate" in header):
        raise ValueError(
            f"{path} is empty; it has to have a rate in requests per second in each row"
        )
    if "request_rate" in header:
        _check_rows(path, header, rows[1:])
        column = header.index("request_rate")
        return [row[column] for row in _by_hour(path, header, rows[1:])]
    if len(header) > 1:
        raise ValueError(
            f"{path} has the columns {', '.join(header)}; one of them must be request_rate"
        )
    return [row[0] for row in rows]


def _check_rows(path: Path, header: list[str], rows: list[list[str]]) -> None:
    unused = [name for name in header if name not in ("hour", "request_rate")]
    if unused or len(set(header)) < len(header):
        raise ValueError(
            f"{path} has the columns {', '.join(header)}; it may have hour and request_rate, each "
            f"once"
        )
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number}: it has {len(row)} fields, and the header {len(header)}"
            )


def _by_hour(path: Path, header: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Return the rows in order of their hours, if they have any; each hour stands once."""
    if "hour" not in header:
        return rows
    column = header.index("hour")
    try:
        hours = [int(row[column]) for row in rows]
    except ValueError as error:
        raise ValueError(
            f"{path}, column hour: {str(error).partition(': ')[2]} is no whole hour, as in 0 or 23"
        ) from None
    if sorted(hours) != list(range(min(hours, default=0), min(hours, default=0) + len(hours))):
        listed = ", ".join(map(str, hours[:HOURS]))
        raise ValueError(
            f"{path}, column hour: {listed}; it has to have each hour once, with none left out"
        )
    return [row for _, row in sorted(zip(hours, rows, strict=True), key=lambda pair: pair[0])]


def _checked(texts: list[str], spec: str) -> list[float]:
    rates = []
    for text in texts:
        try:
            rate = float(text)
        except ValueError:
            rate = float("nan")
        if not (isfinite(rate) and rate > 0):
            raise ValueError(
                f"--diurnal {spec}: {text.strip()!r} is neither a file nor a rate in requests per "
                f"second above 0"
            )
        rates.append(rate)
    return rates
