"""Figures of results, in one look; matplotlib loads only when something is drawn."""

from busdoor.plots.compare import plot_compare
from busdoor.plots.curves import plot_gain, plot_latency_throughput
from busdoor.plots.kv import plot_kv
from busdoor.plots.latency import plot_latency_cdf
from busdoor.plots.occupancy import plot_occupancy
from busdoor.plots.ratios import plot_gain_bars, plot_ladder
from busdoor.plots.save import save_figure
from busdoor.plots.style import identity
from busdoor.plots.timeline import plot_bus_and_door, plot_timeline
from busdoor.plots.waste import plot_waste

__all__ = [
    "identity",
    "plot_bus_and_door",
    "plot_compare",
    "plot_gain",
    "plot_gain_bars",
    "plot_kv",
    "plot_ladder",
    "plot_latency_cdf",
    "plot_latency_throughput",
    "plot_occupancy",
    "plot_timeline",
    "plot_waste",
    "save_figure",
]
