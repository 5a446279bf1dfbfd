"""Checks of arguments at public functions: a mistake is one sentence, no deep error."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, nan
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def whole_number(name: str, value: object, at_least: int = 0, at_most: int = 2**63 - 1) -> int:
    """Return a whole number within bounds, of any numeric type.

    Raises ValueError if it is none.

    >>> whole_number("num_requests", 1e3)
    1000
    >>> whole_number("num_requests", "many")
    Traceback (most recent call last):
    ValueError: num_requests is 'many'; it must be a whole number, 0 or more
    """
    number: Any = value if _is_number(value) else nan
    if isfinite(number) and number == int(number) and at_least <= number <= at_most:
        return int(number)
    bound = f"{at_least} or more" if at_most >= 2**63 - 1 else f"from {at_least} to {at_most}"
    raise ValueError(f"{name} is {short(value)}; it must be a whole number, {bound}")


def positive(name: str, value: object, *, infinite: bool = False) -> float:
    """Return a number above 0.

    Raises ValueError if it is none, or infinite where that is not asked for.

    >>> positive("time_scale", "2")
    Traceback (most recent call last):
    ValueError: time_scale is '2'; it must be a number, more than 0
    """
    number: Any = value if _is_number(value) else nan
    if number > 0 and (infinite or isfinite(number)):
        return float(number)
    finite = " and finite" if number == inf else ""
    raise ValueError(f"{name} is {short(value)}; it must be a number, more than 0{finite}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def instance(name: str, value: T, kind: type[Any], wanted: str) -> T:
    """Return a value if it has the type; raise ValueError with the wanted type if not.

    >>> instance("kv", 3, dict, "a table")
    Traceback (most recent call last):
    ValueError: kv is 3; it must be a table
    """
    if isinstance(value, kind):
        return value
    raise ValueError(f"{name} is {short(value)}; it must be {wanted}")


def table(name: str, value: object) -> dict[str, Any]:
    """Return a mapping with names as keys as a dictionary; raise ValueError for anything else."""
    mapping: Any = instance(name, value, Mapping, "a table: a mapping of names to values")
    given = dict(mapping)
    for key in given:
        instance(f"the key {short(key)} of {name}", key, str, "a name")
    return given


def function(name: str, value: Any) -> Any:
    """Return a callable, or None; raise ValueError for anything else."""
    if value is None or callable(value):
        return value
    raise ValueError(f"{name} is {short(value)}; it must be a function")


def path_of(name: str, value: object) -> Path:
    """Return the path of a file or folder; raise ValueError for anything else.

    >>> path_of("path", None)
    Traceback (most recent call last):
    ValueError: path is None; it must be the name of a file or folder
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise ValueError(f"{name} is {short(value)}; it must be the name of a file or folder")


def short(value: object, most: int = 60) -> str:
    """Return a value as text for a message; one that is long or has several lines, by its type.

    >>> short("abc"), short(list(range(100)))
    ("'abc'", 'a list')
    """
    text = repr(value)
    return text if len(text) <= most and text.isprintable() else f"a {type(value).__name__}"


def check_quantiles(name: str, values: Sequence[float], probabilities: Sequence[float]) -> None:
    """Raise ValueError unless a table of quantiles has as many values as increasing probabilities.

    >>> check_quantiles("values", [1, 2], [0, 0.5])
    Traceback (most recent call last):
    ValueError: probabilities must increase from 0 to 1; they are [0, 0.5]
    """
    if len(values) != len(probabilities):
        raise ValueError(f"{len(values)} {name} do not fit {len(probabilities)} probabilities")
    rises = all(low < high for low, high in pairwise(probabilities))
    if probabilities[0] != 0 or probabilities[-1] != 1 or not rises:
        raise ValueError(f"probabilities must increase from 0 to 1; they are {probabilities}")
