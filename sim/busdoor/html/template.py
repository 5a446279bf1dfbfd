"""Templates beside this file, with $names to fill in."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


def fill(name: str, **values: object) -> str:
    """Return a filled template of this package; values must be HTML already.

    Raises KeyError if the template has a name that is not filled in.

    >>> fill("bus.svg")[:4]
    '<svg'
    """
    return Template(read(name)).substitute(values).strip()


@cache
def read(name: str) -> str:
    """Return a file of this package as text."""
    return (files("busdoor.html") / "assets" / name).read_text(encoding="utf-8")
