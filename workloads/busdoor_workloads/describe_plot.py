"""The figure of `describe`: lengths, arrivals, and the efficiency of static batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from busdoor_workloads.trace import Trace

# Prompt and answer: far apart in lightness too, so that they survive greyscale; neither is a
# policy's colour.
_INPUT, _OUTPUT, _INK = "#9a8fc8", "#35353f", "#24292f"
_NUM_BINS = 60
_RATE_BINS = 120  # at most; fewer where a bin would hold too few requests to show a rate
_REQUESTS_PER_BIN = 10


def draw(trace: Trace, summary: pd.Series[float], batch_sizes: Sequence[int]) -> Figure:
    """Draw three panels side by side; see `busdoor_workloads.describe.plot_describe`."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    lengths, arrivals, efficiency = figure.subplots(1, 3)
    _lengths(lengths, trace, summary)
    _arrivals(arrivals, trace, summary)
    _efficiency(efficiency, summary, batch_sizes)
    title = f"{trace.name}: {len(trace):,} requests"
    # a name is no formula
    figure.suptitle(title, x=0.01, ha="left", color=_INK, fontweight="bold", parse_math=False)
    for axes in (lengths, arrivals, efficiency):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _lengths(axes: Axes, trace: Trace, summary: pd.Series[float]) -> None:
    tokens = np.concatenate([trace.input_tokens, trace.output_tokens])
    log = tokens.max() >= 10 * tokens.min()
    bins = np.unique(np.round(np.geomspace(tokens.min(), tokens.max() + 1, _NUM_BINS)))
    for column, name, color, style in (
        ("input_tokens", "input", _INPUT, {"alpha": 0.75}),
        ("output_tokens", "output", _OUTPUT, {"histtype": "step", "linewidth": 1.6}),
    ):
        mean, p99 = summary[f"{column}_mean"], summary[f"{column}_p99"]
        weights = [1 / len(trace)] * len(trace)
        axes.hist(
            getattr(trace, column),
            bins.tolist(),
            weights=weights,
            color=color,
            label=f"{name}: mean {mean:,.0f}, p99 {p99:,.0f}",
            **style,
        )
    axes.set_xscale("log" if log else "linear")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(
        title="Lengths",
        xlabel="tokens (log scale)" if log else "tokens",
        ylabel="share of requests",
    )
    axes.set_ylim(top=axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def _arrivals(axes: Axes, trace: Trace, summary: pd.Series[float]) -> None:
    axes.set_title("Arrivals")
    if trace.duration_s == 0:
        axes.text(0.5, 0.5, "all at once", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    counts, edges = np.histogram(
        trace.arrival_s, bins=int(np.clip(len(trace) // _REQUESTS_PER_BIN, 1, _RATE_BINS))
    )
    unit, divisor = _time_unit(trace.duration_s)
    bin_s = edges[1] - edges[0]
    axes.stairs(counts / bin_s, edges / divisor, fill=True, color=_INPUT)
    rate = summary["request_rate"]
    axes.axhline(
        rate, color=_OUTPUT, linewidth=1.2, linestyle="--", label=f"mean {rate:.3g} per second"
    )
    axes.plot([], [], " ", label=f"CV of gaps {summary['interarrival_cv']:.2f} (Poisson: 1)")
    axes.set(xlabel=f"time ({unit})", ylabel=f"requests per second (in bins of {bin_s:.3g} s)")
    axes.set_ylim(0, counts.max() / bin_s * 1.25)
    axes.legend(frameon=False, loc="upper right", fontsize="small")


def _time_unit(duration_s: float) -> tuple[str, float]:
    # Change the unit if the axis would otherwise count in hundreds or thousands.
    return next(
        (unit, seconds)
        for unit, seconds, from_s in (
            ("days", 86_400.0, 2 * 86_400),
            ("hours", 3_600.0, 3 * 3_600),
            ("s", 1.0, 0),
        )
        if duration_s >= from_s
    )


def _efficiency(axes: Axes, summary: pd.Series[float], batch_sizes: Sequence[int]) -> None:
    decode = [summary[f"decode_efficiency_b{b}"] for b in batch_sizes]
    prefill = [summary[f"prefill_efficiency_b{b}"] for b in batch_sizes]
    axes.plot(batch_sizes, decode, "s-", color=_OUTPUT, label="decode: E[N] / E[max of b]")
    axes.plot(batch_sizes, prefill, "o--", color=_INPUT, label="prefill, padded prompts")
    for b, share, other in zip(batch_sizes, decode, prefill, strict=True):
        away = -15 if other > share else 8  # on the side where the other curve is not
        axes.annotate(
            f"{share:.0%}",
            (b, share),
            (0, away),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(batch_sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(
        title="Useful share of a static batch",
        xlabel="batch size b",
        ylabel="useful share",
        ylim=(0, 1.35),
    )  # the legend above 100 %
    axes.legend(frameon=False, loc="upper right", fontsize="small")
