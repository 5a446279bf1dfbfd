"""A day's traffic in servers, and what static batching makes of a load: from a trace to a purchase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from busdoor.comparison.curve import Curve
    from busdoor.comparison.gain_map import GainMap


def plot_day(table: pd.DataFrame) -> Figure:
    """Draw the rate of each hour and the servers that each policy needs for it.

    Parameters
    ----------
    table : DataFrame
        As `Capacity.plan_day` returns it: one row an hour, `request_rate`, and a column a policy.
    """
    from busdoor.plots.style import PALE, new_figure, styled
    from busdoor.plots.variants import identities

    @styled
    def draw() -> Figure:
        figure = new_figure(7.5, 4.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        above.bar(table.index, table["request_rate"], color=PALE, width=0.9)
        above.set_ylabel("requests/s")
        looks = identities(map(str, table.columns.drop("request_rate")))
        for name, look in looks.items():
            if table[name].notna().all():
                color = look["color"]
                below.step(
                    table.index,
                    table[name],
                    where="mid",
                    color=color,
                    linestyle=look["linestyle"],
                    label=name,
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
    [3, 6, 4]
    """
    servers = table.drop(columns="request_rate").dropna(axis="columns")
    peak = servers.max()
    columns = {
        "servers at the peak": peak,
        "bought (server-hours)": peak * len(servers),
        "switched (server-hours)": servers.sum(),
    }
    return pd.DataFrame(columns).astype(int)


def curve(
    workload: Mapping[str, Any], slo: Mapping[str, Any], loads: Sequence[float], replications: int
) -> Curve:
    """Run static batching and vllm on an H100 over offered loads, as `busdoor compare --curve`.

    Parameters
    ----------
    workload, slo : mapping
        Tables of a configuration.
    loads : sequence of float
        Shares of what vllm carries.
    replications : int
        Draws.
    """
    from busdoor.comparison.api import draws
    from busdoor.comparison.curve import CurveExperiment
    from busdoor.config import Config

    tables = {"workload": workload, "slo": slo, "replications": replications}
    config = Config.from_table({**tables, "policy": ["static", "vllm"]})
    experiment = CurveExperiment(config, draws(config), loads=loads)
    experiment.run()
    return experiment.curve()


def gain_map(spreads: Sequence[float], batches: Sequence[int]) -> GainMap:
    """Return the gain over the spread of output lengths and the batch size, for azure-conv.

    Parameters
    ----------
    spreads : sequence of float
        Standard deviations of the output lengths over their mean.
    batches : sequence of int
        Batch sizes of static batching; vllm has as many slots.
    """
    from busdoor.comparison.api import draws
    from busdoor.comparison.gain_map import MapExperiment
    from busdoor.config import Config

    workload = {"name": "azure-conv", "request_rate": 12.0, "num_requests": 600}
    config = Config.from_table(
        {"workload": workload, "policy": ["static", "vllm"], "replications": 2}
    )
    experiment = MapExperiment(config, draws(config), spreads=spreads, batches=batches)
    experiment.run()
    return experiment.map(pd.DataFrame())
