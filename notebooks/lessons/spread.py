"""What the spread of lengths is worth: closed form, simulation; laws and real traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.comparison.api import compare
from busdoor.metrics.saturation import saturated_rates
from busdoor.plots.style import INK, PALE, axes_or_new, identity, styled
from busdoor.theory import expected_max
from busdoor_workloads import profile
from busdoor_workloads.lengths import Fixed, Lengths, LogNormal
from lessons.servers import continuous, serve, static

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN_TOKENS = 128
SLOTS = 16


def lengths_of_spread(cv: float, mean: float = MEAN_TOKENS) -> Lengths:
    """Return lognormal lengths of this standard deviation over mean; equal ones for 0.

    Examples
    --------
    >>> lengths_of_spread(0.0)
    Fixed(tokens=128)
    """
    if cv == 0:
        return Fixed(tokens=round(mean))
    sigma = float(np.sqrt(np.log(1 + cv**2)))
    return LogNormal(mu=float(np.log(mean)) - sigma**2 / 2, sigma=sigma)


def same_slots_gain(output_tokens: np.ndarray, slots: int = SLOTS) -> float:
    """Simulate the saturated gain with equal slots, tiny prompts and memory for all."""
    runs = (serve(policy, output_tokens) for policy in (continuous(slots), static(slots)))
    door, bus = (saturated_rates(run.requests, run.meta)["request_throughput"] for run in runs)
    return float(door / bus)


def gain_by_profile(
    names: Sequence[str],
    slots: int = SLOTS,
    num_requests: int = 400,
    replications: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the gain on public traces' lengths: bubbles alone; on a GPU, prompts, memory.

    Parameters
    ----------
    names : sequence of str
        Profiles.
    slots : int
        For the part without prompts and memory.
    num_requests, replications, seed
        As in `busdoor.compare`; the GPU is its default, an H100 with llama-3.1-8b by the roofline
        model.

    Returns
    -------
    DataFrame
        One row a profile, smallest bound first: `cv` of the answers; `bound`, E[max] / E[N];
        `same_slots`, the simulated gain that should meet it; `over_static` and `over_best_static`
        with `_low` and `_high` on the GPU; `default_batch` and `best_batch`, the rows of the two
        static ones.
    """
    rows = {name: _profile(name, slots, num_requests, replications, seed) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("bound")


def _profile(
    name: str, slots: int, num_requests: int, replications: int, seed: int
) -> dict[str, float]:
    lengths = profile(name).generate(seed=seed, num_requests=400 * slots).output_tokens
    found = compare(
        name, ["static", "vllm"], num_requests=num_requests, replications=replications, seed=seed
    )
    batches = found.table["num_slots"]
    return {
        "cv": float(lengths.std() / lengths.mean()),
        "bound": expected_max(lengths, slots) / float(lengths.mean()),
        "same_slots": same_slots_gain(lengths, slots),
        **{str(end): float(gains["vllm"]) for end, gains in found.gain.items()},
        "default_batch": float(batches["static"]),
        "best_batch": float(batches[found.best_static or "static"]),
    }


def plot_profile_gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw `gain_by_profile`: the bound, the simulation, and what the GPU makes of it."""

    @styled
    def draw() -> Axes:
        axes = axes_or_new(ax, 7.0, 0.9 + 0.55 * len(table))
        rows = np.arange(len(table))
        door, bus = identity("vllm")["color"], identity("static")["color"]
        axes.plot(table["same_slots"], rows - 0.22, "o", color=door, label="same slots, simulated")
        axes.plot(
            table["bound"],
            rows - 0.22,
            "x",
            color=INK,
            label="same slots, closed form",
            markersize=8,
        )
        statics = ("over_best_static", "D", 0.0, "best"), ("over_static", "s", 0.22, "default")
        for column, marker, row, what in statics:
            axes.hlines(
                rows + row,
                table[f"{column}_low"],
                table[f"{column}_high"],
                color=bus,
                linewidth=1.2,
            )
            axes.plot(
                table[column],
                rows + row,
                marker,
                color=bus,
                label=f"H100, over static at its {what} batch",
            )
        axes.axvline(1.0, color=INK, linewidth=1.0)
        axes.set_ylim(-0.5, len(table) - 0.5)
        axes.set(
            yticks=rows, yticklabels=table.index, xlabel="gain (× static throughput)", xscale="log"
        )
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
        return axes

    return draw()


def plot_lengths(
    names: Sequence[str], batch_size: int = SLOTS, seed: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw answer lengths by profile: most of them, the mean, a static batch's mean longest.

    The way from the mean to the longest is what a static batch computes for nothing.
    """
    laws = {
        name: profile(name).generate(seed=seed, num_requests=20_000).output_tokens for name in names
    }
    laws = dict(
        sorted(laws.items(), key=lambda item: expected_max(item[1], batch_size) / item[1].mean())
    )

    @styled
    def draw() -> Axes:
        axes = axes_or_new(ax, 7.0, 0.9 + 0.34 * len(laws))
        rows = np.arange(len(laws))
        means = [lengths.mean() for lengths in laws.values()]
        longest = [expected_max(lengths, batch_size) for lengths in laws.values()]
        low, high = np.array([np.percentile(lengths, (5, 95)) for lengths in laws.values()]).T
        axes.hlines(rows, low, high, color=PALE, linewidth=7, label="90 % of the answers")
        axes.hlines(rows, means, longest, color=identity("static")["color"], linewidth=1.5)
        axes.plot(means, rows, "o", color=identity("vllm")["color"], label="mean")
        axes.plot(
            longest,
            rows,
            "s",
            color=identity("static")["color"],
            label=f"mean longest of {batch_size}",
        )
        axes.set(yticks=rows, yticklabels=list(laws), xlabel="output tokens", xscale="log")
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
        return axes

    return draw()
