"""Numbers as JSON has them: what is not a number is null, and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan
from typing import Any

import pandas as pd


def plain(value: Any) -> float | None:
    """Return a number as JSON has it.

    Examples
    --------
    >>> plain(0.5), plain(float("nan")), plain(float("inf"))
    (0.5, None, None)
    """
    number = float(value)
    return number if isfinite(number) else None


def plains(values: Any) -> dict[str, float | None]:
    """Return named numbers, of a mapping or a series, as JSON has them."""
    return {str(key): plain(value) for key, value in values.items()}


def numbers(told: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers with NaN where JSON has null.

    Examples
    --------
    >>> numbers({"mean": None, "p99": 0.5})
    {'mean': nan, 'p99': 0.5}
    """
    return {key: nan if value is None else value for key, value in told.items()}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table of numbers and words."""
    return [
        {str(key): plain(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
