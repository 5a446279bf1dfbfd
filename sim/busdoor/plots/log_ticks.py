"""Powers of ten on logarithmic axes, written without formulas, which busdoor's figures do not read."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterMathtext, LogFormatterSciNotation

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(formula: str) -> str:
    r"""Write a tick of matplotlib's logarithmic axes as text.

    Examples
    --------
    >>> plain(r"$\mathdefault{10^{-2}}$"), plain(r"$\mathdefault{2\times10^{3}}$"), plain("")
    ('10⁻²', '2×10³', '')
    """
    text = formula.removeprefix(r"$\mathdefault{").removesuffix("}$").replace(r"\times", "×")
    return re.sub(r"\^\{([-\d]+)\}", lambda power: power[1].translate(_SUPERSCRIPTS), text)


class PlainLogFormatter(LogFormatterSciNotation):
    """Ticks as matplotlib's own formatter has them, as text."""

    @classmethod
    def like(cls, formatter: LogFormatterMathtext) -> PlainLogFormatter:
        """Return one with the settings of another."""
        new = cls()
        vars(new).update(vars(formatter))
        return new

    def __call__(self, x: float, pos: Any = None) -> str:
        """Return the text of the tick at a value."""
        return plain(super().__call__(x, pos))


def write_plainly(axes: Axes) -> None:
    """Let the logarithmic axes of a panel have ticks of plain text."""
    for axis in (axes.xaxis, axes.yaxis):
        major, minor = axis.get_major_formatter(), axis.get_minor_formatter()
        if isinstance(major, LogFormatterMathtext):
            axis.set_major_formatter(PlainLogFormatter.like(major))
        if isinstance(minor, LogFormatterMathtext):
            axis.set_minor_formatter(PlainLogFormatter.like(minor))
