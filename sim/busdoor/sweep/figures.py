"""A sweep's points as lines over the first swept key that is a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from busdoor.core.format import duration_text, number
from busdoor.plots.style import axes_or_new, identity, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = 8  # more cannot be told apart
_SHADES = (1.0, 0.6, 0.35)  # of lines of one policy


def axis_of(table: pd.DataFrame, varied: Sequence[str]) -> str | None:
    """Return the first varied key that is a number; None where there is none, or lines are many.

    >>> rows = pd.DataFrame({"gpu.name": ["h100", "h200"] * 2, "rate": [4, 4, 8, 8]})
    >>> axis_of(rows, ["gpu.name", "rate"])
    'rate'
    """
    axis = next(
        (key for key in varied if is_numeric_dtype(table[key]) and not is_bool_dtype(table[key])),
        None,
    )
    others = [key for key in varied if key != axis]
    lines = len(table.groupby(others, dropna=False)) if others else 1
    return axis if lines <= LINES else None


@styled
def plot_points(
    table: pd.DataFrame,
    varied: Sequence[str],
    axis: str,
    metric: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric over the axis, a line for each combination of the other keys.

    Policies keep their colours; further keys are shades of them.
    """
    axes = axes_or_new(ax)
    others = [key for key in varied if key != axis]
    groups = table.groupby(others, dropna=False, sort=False) if others else [((), table)]
    drawn: dict[str, int] = {}
    for values, own in groups:
        named = dict(zip(others, values, strict=True))
        policy = str(named.get("policy", "vllm"))
        shade = _SHADES[drawn.get(policy, 0) % len(_SHADES)]
        drawn[policy] = drawn.get(policy, 0) + 1
        label = ", ".join(number(v) if isinstance(v, float) else str(v) for v in named.values())
        line = own.groupby(axis)[metric].mean().dropna()
        axes.plot(line.index, line, **identity(policy) | {"label": label or "all"}, alpha=shade)
    axes.set(xlabel=axis)
    seconds = metric.endswith("_ms")
    axes.yaxis.set_major_formatter(
        lambda value, _: duration_text(value / 1e3) if seconds else f"{value:,.0f}"
    )
    low, high = table[metric].min(), table[metric].max()
    if low > 0 and high > 20 * low:  # so far apart that small ones would all lie on the axis
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.get_figure().legend(loc="outside lower center")  # type: ignore[union-attr]
    return axes
