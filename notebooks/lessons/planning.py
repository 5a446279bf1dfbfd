"""A day's traffic in servers: the picture at the end of capacity planning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_day(table: pd.DataFrame) -> Figure:
    """Draw the rate of each hour and the servers that each policy needs for it.

    Parameters
    ----------
    table : DataFrame
        As `Capacity.plan_day` returns it: one row an hour, `request_rate`, and a column a policy.
    """
    from busdoor.plots.style import PALE, identity, new_figure, styled

    @styled
    def draw() -> Figure:
        figure = new_figure(7.5, 4.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        above.bar(table.index, table["request_rate"], color=PALE, width=0.9)
        above.set_ylabel("requests/s")
        for name in table.columns.drop("request_rate"):
            if table[name].notna().all():
                color = identity(str(name))["color"]
                seen = any(line.get_color() == color for line in below.get_lines())
                dash = "--" if seen else "-"  # another of the same family
                below.step(
                    table.index,
                    table[name],
                    where="mid",
                    color=color,
                    linestyle=dash,
                    label=str(name),
                )
                below.fill_between(
                    table.index, table[name], step="mid", color=color, alpha=0.15, linewidth=0
                )
        below.set(xlabel="hour of the day", ylabel="servers", ylim=(0, None))
        below.yaxis.get_major_locator().set_params(integer=True)
        below.legend(loc="upper left")
        return figure

    return draw()


def servers_hours(table: pd.DataFrame) -> pd.DataFrame:
    """Sum up a day: servers at the peak, and server-hours, bought or switched by the hour.

    Examples
    --------
    >>> day = pd.DataFrame({"request_rate": [10.0, 40.0], "vllm": [1.0, 3.0]})
    >>> servers_hours(day).loc["vllm"].tolist()
    [3.0, 6.0, 4.0]
    """
    servers = table.drop(columns="request_rate").dropna(axis="columns")
    peak = servers.max()
    return pd.DataFrame(
        {"peak": peak, "hours_bought": peak * len(servers), "hours_switched": servers.sum()}
    )
