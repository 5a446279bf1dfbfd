"""How much of a static batch is wanted work, on real lengths: the survey's table of section 1.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from busdoor_workloads import Trace, profile, profile_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH_SIZES = (2, 4, 8, 16, 32, 64)
LABEL_GAP = 0.055  # least distance of two names at the lines' ends, of the axis
# drawn of each profile: the error of E[N] / E[max of 64] is below 1 % for its widest law
NUM_REQUESTS = 20_000


def bubble_table(
    traces: Mapping[str, Trace] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the useful share of static slot-iterations, E[N] / E[max of b], by data set and b.

    Parameters
    ----------
    traces : mapping of str to Trace, optional
        Whose output lengths; all shipped profiles of public traces if left out.
    batch_sizes : sequence of int
        Requests in a batch, filled at random.
    seed : int
        Of what is drawn from profiles.

    Returns
    -------
    DataFrame
        One row per data set, one column per batch size, then `prefill_16` (the same of prompts,
        padded to the longest of 16) and `dataset` (answers padded to the longest of all, as in
        Anyscale's naive run).

    Notes
    -----
    The inverse is the gain of continuous batching with as many slots, without prefill and memory
    effects. Published nowhere but in this project's survey: 0.42 for Azure's conversations at b =
    16, 0.18 for code, 0.83 for a filtered ShareGPT whose answers are nearly equal. A profile's
    table differs from its trace's by a few hundredths.

    Examples
    --------
    >>> chat = Trace(arrival_s=[0, 0], input_tokens=[5, 5], output_tokens=[1, 3])
    >>> bubble_table({"chat": chat}, batch_sizes=[1, 2]).round(2)
            1    2  prefill_16  dataset
    chat  1.0  0.8         1.0     0.67
    """
    from busdoor_workloads.describe import static_efficiency

    if traces is None:
        traces = {
            name: profile(name).generate(seed=seed, num_requests=NUM_REQUESTS)
            for name in profile_names()
        }
    rows = {}
    for name, trace in traces.items():
        row = static_efficiency(trace.output_tokens, batch_sizes)
        row["prefill_16"] = static_efficiency(trace.input_tokens, [16])[16]
        row["dataset"] = trace.output_tokens.mean() / trace.output_tokens.max()
        rows[name] = row
    return pd.DataFrame(rows).T


def plot_bubbles(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the useful share over the batch size, one line a data set."""
    from busdoor.plots.style import INK, PALE, axes_or_new, styled

    @styled
    def draw() -> Axes:
        axes = axes_or_new(ax)
        sizes = [int(column) for column in table.columns if not isinstance(column, str)]
        height = 0.0
        for name in table[sizes[-1]].sort_values().index:
            row = table.loc[name]
            axes.plot(sizes, row[sizes], marker="o", color=INK, alpha=0.6)
            height = max(float(row[sizes[-1]]), height + LABEL_GAP)
            end, beside = (sizes[-1], float(row[sizes[-1]])), (sizes[-1] * 1.5, height)
            leader = {"arrowstyle": "-", "color": PALE, "linewidth": 0.8, "shrinkA": 0}
            axes.annotate(str(name), end, beside, va="center", fontsize=8, arrowprops=leader)
        axes.set(
            xlabel="requests in a static batch",
            ylabel="useful share of slot time",
            xscale="log",
            ylim=(0, 1),
        )
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlim(right=sizes[-1] * 5)  # room for the names
        return axes

    return draw()
