"""Durations in a configuration: a number of seconds, or a distribution of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated

import numpy as np
from pydantic import PlainValidator

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.lengths import Lengths, as_lengths

_CUTS = ("min", "max", "truncate")


def as_seconds(value: object) -> float | Lengths:
    """Return the seconds, or the distribution of seconds, of a configuration's value.

    ``30.0`` or ``{"type": "exponential", "mean": 30.0}``; the types are those of lengths, uncut and
    unrounded. Raises ValueError for a negative number, a bound in tokens, or a value that
    `as_lengths` refuses.

    >>> as_seconds(30), as_seconds({"type": "exponential", "mean": 30})
    (30.0, Exponential(min=1, max=2147483647, truncate='clip', mean=30.0))
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"it is {value} seconds; it must be 0 or more")
        return float(value)
    if isinstance(value, Mapping) and (cuts := [key for key in _CUTS if key in value]):
        raise ValueError(f"{cuts[0]!r} cuts a number of tokens; seconds are not cut")
    if isinstance(value, (Mapping, Lengths)):
        return as_lengths(value)
    raise ValueError(f"{value!r} is neither a number of seconds nor a table with a 'type'")


AnySeconds = Annotated[float | Lengths, PlainValidator(as_seconds)]


def draw_seconds(duration: float | Lengths, n: int, rng: np.random.Generator) -> FloatArray:
    """Draw `n` durations, in seconds, shape (n,).

    >>> draw_seconds(2.5, 2, np.random.default_rng(0))
    array([2.5, 2.5])
    """
    return (
        duration.seconds(n, rng) if isinstance(duration, Lengths) else np.full(n, float(duration))
    )
