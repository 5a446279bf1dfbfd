"""Use of the KV cache over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.plots.breakdown import kv_capacity_tokens, kv_curves
from busdoor.plots.hatches import KV_LABELS, look
from busdoor.plots.runs import Run, of_replica, server_meta, time_label
from busdoor.plots.style import INK, axes_or_new, identity, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TIMES = 2000  # vertices of each curve


@styled
def plot_kv(result: Run, ax: Axes | None = None, *, replica: int = 0) -> Axes:
    """Draw KV tokens used, reserved, never written and fragmented over time, stacked.

    Parameters
    ----------
    result : Run
        A result with its `iterations`; `meta` has `num_blocks` and `block_size`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.
    replica : int
        Which server.

    Returns
    -------
    matplotlib.axes.Axes
        One collection for each part that occurs, labelled with its name.
    """
    ax = axes_or_new(ax)
    iterations, _ = of_replica(result, replica)
    capacity = kv_capacity_tokens(result, replica)
    curves = _thinned(kv_curves(iterations, server_meta(result, replica)["block_size"], capacity))
    color = identity(str(result.meta["policy"]))["color"]
    floor = np.zeros(len(curves))
    for part, label in KV_LABELS.items():
        if part != "free" and curves[part].any():
            top = floor + curves[part].to_numpy()
            ax.fill_between(curves["time_s"], floor, top, label=label, **look(part, color))
            floor = top
    ax.axhline(capacity, color=INK, linewidth=1.0, label=f"capacity {capacity:,.0f}")
    ax.set(xlim=tuple(curves["time_s"].iloc[[0, -1]]), ylim=(0, 1.32 * capacity))
    ax.set(xlabel=time_label(result, replica), ylabel="KV cache (tokens)")
    ax.yaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
    ax.legend(loc="upper right", ncols=2, borderaxespad=0.1, handlelength=1.6)
    return ax


def _thinned(curves: pd.DataFrame) -> pd.DataFrame:
    """Return long curves sampled at equal distances in time, about one vertex per pixel."""
    if len(curves) <= MAX_TIMES:
        return curves
    time_s = np.maximum.accumulate(curves["time_s"].to_numpy())
    times = np.linspace(time_s[0], time_s[-1], MAX_TIMES)
    return pd.DataFrame({name: np.interp(times, time_s, curves[name]) for name in curves})
