"""One setting at a time: what it does to throughput, latency and memory, all else being equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.recorded import burst
from busdoor.config.run import run
from busdoor.metrics.metrics import token_gaps
from busdoor.metrics.saturation import saturated_rates
from busdoor.results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What each column of `sweep_setting` is called in pictures, and whether it is better when small.
PANELS = {
    "most_tokens_per_s": "output tokens/s at most",
    "p99_ttft_s": "TTFT p99 (s)",
    "p99_itl_ms": "gap between tokens p99 (ms)",
    "p99_e2e_s": "E2E p99 (s)",
    "bubble_%": "idle slot time (%)",
    "preemptions": "preemptions",
    "mean_batch_size": "mean batch size",
}


def sweep_setting(
    setting: str,
    values: Sequence[Any],
    *,
    policy: Mapping[str, Any] | str = "vllm",
    workload: str = "azure-conv",
    request_rate: float = 12.0,
    num_requests: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Change one server setting on the same requests; H100, llama-3.1-8b, roofline model.

    Parameters
    ----------
    setting : str
        A field of the policy, or of the memory as in "kv.num_blocks".
    values : sequence
        What it is set to.
    policy : str or mapping
        The policy, with the other fields.
    workload : str
        A profile.
    request_rate : float
        Requests per second for the latencies.
    num_requests, seed
        Of the run.

    Returns
    -------
    DataFrame
        One row a value: `most_tokens_per_s`, output tokens per second when saturated; `p99_ttft_s`,
        `p99_itl_ms`, `p99_e2e_s`, `bubble_%`, `preemptions` and `mean_batch_size` (over time) at
        the rate.

    Examples
    --------
    >>> table = sweep_setting("max_num_seqs", [8, 256], num_requests=60)
    >>> bool(table["most_tokens_per_s"].is_monotonic_increasing)
    True
    """
    rows = {}
    for value in values:
        config = _config(setting, value, policy, workload, request_rate, num_requests, seed)
        rows[value] = _row(config)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(setting.split(".")[-1])


def _config(
    setting: str,
    value: Any,
    policy: Mapping[str, Any] | str,
    workload: str,
    rate: float,
    num_requests: int,
    seed: int,
) -> Config:
    table = {"name": policy} if isinstance(policy, str) else dict(policy)
    where, _, key = setting.rpartition(".")
    kv = {key: value} if where == "kv" else {}
    if not where:
        table[key] = value
    asked = {"name": workload, "request_rate": rate, "num_requests": num_requests}
    return Config.from_table(
        {"workload": asked, "policy": table, "kv": kv, "seed": seed, "replications": 1}
    )


def serve_once(config: Config) -> Result:
    """Run the one policy of a configuration on its first draw."""
    trace = config.workload.trace(config.seed, 0)
    return run(config, config.policies[0], trace, limits_for(config, [trace]))


def _row(config: Config) -> dict[str, float]:
    trace = config.workload.trace(config.seed, 0)
    limits = limits_for(config, [trace])
    full = run(config, config.policies[0], burst(trace), limits, iterations=False)
    summary = serve_once(config).summary
    return {
        "most_tokens_per_s": float(saturated_rates(full.requests, full.meta)["output_throughput"]),
        "p99_ttft_s": summary["p99_ttft_ms"] / 1e3,
        "p99_itl_ms": summary["p99_itl_ms"],
        "p99_e2e_s": summary["p99_e2el_ms"] / 1e3,
        "bubble_%": 100 * summary["bubble_share"],
        "preemptions": float(full.requests["num_preemptions"].sum()),
        "mean_batch_size": summary["mean_batch_size_time"],
    }


def plot_setting(
    table: pd.DataFrame, columns: Sequence[str], *, policy: str = "vllm", default: Any = None
) -> Figure:
    """Draw what a setting does, a panel a column; a vertical line marks the default."""
    from busdoor.plots.style import PALE, identity, new_figure, styled

    @styled
    def draw() -> Figure:
        figure = new_figure(3.2 * len(columns), 2.6)
        look = {**identity(policy), "linestyle": "-"}
        for ax, column in zip(
            figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True
        ):
            ax.plot(table.index, table[column], **look)
            if default is not None:
                ax.axvline(default, color=PALE, linewidth=1.2)
                ax.annotate(
                    "default",
                    (default, 1.0),
                    xycoords=("data", "axes fraction"),
                    fontsize=8,
                    ha="center",
                    va="bottom",
                    color="#57606a",
                )
            ax.set(xscale="log", xlabel=str(table.index.name), ylabel=PANELS[column])
            _label_values(ax, list(table.index))
            _scale(ax, table[column])
        return figure

    return draw()


def _label_values(ax: Axes, values: Sequence[float]) -> None:
    """Label at most six of the values, the largest among them."""
    shown = list(values)[:: -(-len(values) // 6) * -1] if len(values) > 6 else list(values)
    ax.set_xticks(
        shown, [f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k" for value in shown]
    )
    ax.minorticks_off()


def _scale(ax: Axes, values: pd.Series[float]) -> None:
    """Begin at nothing, unless values are so far apart that small ones would look alike."""
    if values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        ax.set_ylim(0, 1.08 * float(values.max()) or 1.0)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")


def gaps_by_policy(
    policies: Mapping[str, Mapping[str, Any]],
    *,
    workload: str = "arxiv-summarization",
    request_rate: float = 3.0,
    num_requests: int = 300,
    seed: int = 0,
) -> dict[str, Result]:
    """Serve the same long prompts with several prefill ways; as in `sweep_setting`."""
    return {
        name: serve_once(_config("label", name, policy, workload, request_rate, num_requests, seed))
        for name, policy in policies.items()
    }


def gap_table(results: Mapping[str, Result]) -> pd.DataFrame:
    """Return for each run its gaps between tokens in ms and its waits for the first token in s."""
    rows = {}
    for name, result in results.items():
        gaps_s, counts = token_gaps(result.iterations)
        summary = result.summary
        rows[name] = {
            "median_itl_ms": summary["median_itl_ms"],
            "p99_itl_ms": summary["p99_itl_ms"],
            "longest_itl_ms": 1e3 * float(gaps_s[counts > 0].max()),
            "median_ttft_s": summary["median_ttft_ms"] / 1e3,
            "p99_ttft_s": summary["p99_ttft_ms"] / 1e3,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def plot_gaps(results: Mapping[str, Result], ax: Axes | None = None) -> Axes:
    """Draw the share of token gaps longer than so many milliseconds, one line a run."""
    from busdoor.plots.style import axes_or_new, styled

    @styled
    def draw() -> Axes:
        axes = axes_or_new(ax)
        for (name, result), color in zip(results.items(), _COLORS, strict=False):
            gaps_s, counts = token_gaps(result.iterations)
            order = np.argsort(gaps_s)
            longer = 1 - np.cumsum(counts[order]) / counts.sum()
            axes.step(1e3 * gaps_s[order], 100 * longer, where="post", color=color, label=name)
        axes.set(xscale="log", yscale="log", ylim=(0.01, 110))
        axes.set(xlabel="gap between two tokens of an answer (ms)", ylabel="longer gaps (%)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend()
        return axes

    return draw()


_COLORS = ("#c4501b", "#f2b25a", "#3f92c4", "#0b3c78")
