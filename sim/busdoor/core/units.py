"""Durations and keys as a configuration writes them: read, checked, refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, PositiveFloat

from busdoor_workloads.nearest import nearest

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

_DURATION = re.compile(r"\s*([0-9.eE+-]+)\s*(us|ms|s|min|h)?\s*")

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, None: 1.0}


def parse_seconds(value: float | str) -> float:
    """Read a duration: a number of seconds, or a string with a unit.

    Examples
    --------
    >>> parse_seconds("200ms"), parse_seconds(3), parse_seconds("2 min")
    (0.2, 3.0, 120.0)
    >>> parse_seconds("2 sec")
    Traceback (most recent call last):
    ValueError: '2 sec' is no duration; write a number of seconds, or one with a unit: '200ms', '2s', '5min', '1h'
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    try:
        if match:
            return float(match[1]) * _SECONDS[match[2]]
    except ValueError:
        pass
    raise ValueError(
        f"{value!r} is no duration; write a number of seconds, or one with a unit: '200ms', '2s', "
        f"'5min', '1h'"
    )


def number_or_text(text: str) -> float | str:
    """Return the number that a flag's text is, else the text.

    >>> number_or_text("2"), number_or_text("2s")
    (2.0, '2s')
    """
    try:
        return float(text)
    except ValueError:
        return text


Seconds = Annotated[PositiveFloat, BeforeValidator(parse_seconds)]


def reject_unknown(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for the first key that is not known, with the nearest right one.

    >>> reject_unknown("[kv]", ["block_sise"], ["block_size", "num_blocks"])
    Traceback (most recent call last):
    ValueError: [kv] block_sise: unknown; did you mean block_size?
    >>> reject_unknown("[kv]", ["colour"], ["block_size", "num_blocks"])
    Traceback (most recent call last):
    ValueError: [kv] colour: unknown; it may have block_size, num_blocks
    """
    names = sorted(known)
    for key in keys:
        if key not in names:
            near = nearest(str(key), names)
            guess = f"did you mean {near}?" if near else f"it may have {', '.join(names)}"
            raise ValueError(f"{where} {key}: unknown; {guess}".strip())
