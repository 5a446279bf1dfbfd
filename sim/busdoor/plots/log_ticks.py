"""Powers of ten on logarithmic axes as plain text, since busdoor's figures parse no formulas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import LogFormatterMathtext, LogFormatterSciNotation

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(formula: str) -> str:
    r"""Write a tick of matplotlib's logarithmic axes as text.

    >>> plain(r"$\mathdefault{10^{-2}}$"), plain(r"$\mathdefault{2\times10^{3}}$"), plain("")
    ('10⁻²', '2×10³', '')
    """
    text = formula.removeprefix(r"$\mathdefault{").removesuffix("}$").replace(r"\times", "×")
    return re.sub(r"\^\{([-\d]+)\}", lambda power: power[1].translate(_SUPERSCRIPTS), text)


def write_plainly(axes: Axes) -> None:
    """Write the ticks of a panel's logarithmic axes as plain text."""
    from matplotlib.ticker import LogFormatterMathtext

    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(major := axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(_plain_like(major))
        if isinstance(minor := axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(_plain_like(minor))


def _plain_like(formatter: LogFormatterMathtext) -> LogFormatterSciNotation:
    """Return a formatter with the settings of another, whose ticks are plain text."""
    from matplotlib.ticker import LogFormatterSciNotation

    class PlainLogFormatter(LogFormatterSciNotation):
        def __call__(self, x: float, pos: Any = None) -> str:
            return plain(super().__call__(x, pos))

    new = PlainLogFormatter()
    vars(new).update(vars(formatter))
    return new
