"""The machines that were measured for this repository: terms, pictures of profiles, tables of errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import busdoor
from busdoor.calibration import Calibration, Validation, load_measured
from busdoor.calibration.playback import predicted_s
from busdoor.calibration.twins import Twin, find_twins
from busdoor.result import Result
from busdoor.step_time.base import StepTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOT = Path(busdoor.__file__).resolve().parents[2]


def measured_twins() -> list[Twin]:
    """Find the twins that this repository keeps.

    Raises
    ------
    ValueError
        Where busdoor is installed without its repository.
    """
    twins = find_twins(_ROOT / "gpu" / "results")
    if not twins:
        raise ValueError("the measured runs are in the repository's gpu/results; work in a clone of it")
    return twins


def vllm_runs() -> dict[str, Result]:
    """Logs of the real vLLM on a CPU, by their rate in requests per second; see tests/measured/README.md."""
    rates = (4, 12, 20)
    return {f"rate_{rate}": load_measured(_ROOT / f"tests/measured/vllm_cpu/rate_{rate}.json.gz") for rate in rates}


def terms(calibration: Calibration) -> pd.DataFrame:
    """Return a calibration's terms in microseconds, with their 95 % intervals; of per_token_s a row each segment.

    Examples
    --------
    >>> terms(Calibration.load("vllm-cpu")).columns.tolist()
    ['value (µs)', 'low', 'high']
    """
    rows: dict[str, list[float]] = {}
    for term, value in calibration.step_time.describe().items():
        interval = calibration.intervals.get(term)
        if isinstance(value, list) and interval:
            starts = [0, *calibration.step_time.token_breaks]
            rows |= {
                f"{term}, beyond {start}": [own, *ends]
                for start, own, ends in zip(starts, value, interval, strict=True)
            }
        elif interval:
            rows[term] = [value, *interval]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value (µs)", "low", "high"]) * 1e6


def shapes(profile: Result, step_time: StepTime) -> pd.DataFrame:
    """Return a row for each designed shape: what it computes, the median measured time and the predicted, in ms."""
    table = profile.iterations.assign(predicted_s=predicted_s(profile, step_time))
    table["chunks"] = table["num_requests"] - table["num_decode_tokens"]
    medians = table.groupby("cell").agg(
        decodes=("num_decode_tokens", "first"),
        context=("context_tokens", "first"),
        chunks=("chunks", "first"),
        prefill_tokens=("num_prefill_tokens", "first"),
        prior_tokens=("prefill_context_tokens", "first"),
        measured_ms=("duration_s", "median"),
        predicted_ms=("predicted_s", "median"),
    )
    medians[["measured_ms", "predicted_ms"]] *= 1e3
    medians["prior_tokens"] -= medians["prefill_tokens"]
    return medians.reset_index(drop=True)


def plot_profile(table: pd.DataFrame) -> Figure:
    """Draw the shapes of a profile: decodes over batch and context, prompts over tokens; points measured, lines fitted.

    Parameters
    ----------
    table : DataFrame
        As `shapes` returns it.
    """
    from busdoor.plots.style import new_figure, styled

    @styled
    def draw() -> Figure:
        figure = new_figure(9.5, 3.8)
        left, right = figure.subplots(1, 2)
        decodes = table[(table["chunks"] == 0)]
        decodes = decodes.assign(each=decodes["context"] // decodes["decodes"])
        for each, own in decodes[decodes["context"] % decodes["decodes"] == 0].groupby("each"):
            if own["decodes"].nunique() > 2:
                _draw_line(left, own.sort_values("decodes"), "decodes", f"{each} tokens each")
        left.set(title="decodes", xlabel="requests in the batch", ylabel="iteration (ms)", ylim=(0, None))
        prompts = table[(table["decodes"] == 0) & (table["prior_tokens"] == 0)]
        for count, own in prompts.groupby("chunks"):
            if len(own) > 1:
                label = f"{count} prompt{'' if count == 1 else 's'}"
                _draw_line(right, own.sort_values("prefill_tokens"), "prefill_tokens", label)
        right.set(title="prefill of whole prompts", xlabel="tokens of all prompts", xscale="log", yscale="log")
        right.set_ylabel("iteration (ms)")
        for ax in (left, right):
            ax.legend()
        return figure

    return draw()


def _draw_line(ax: Axes, own: pd.DataFrame, x: str, label: str) -> None:
    (line,) = ax.plot(own[x], own["predicted_ms"], label=label)
    ax.plot(own[x], own["measured_ms"], "o", color=line.get_color())


def errors(validation: Validation) -> pd.DataFrame:
    """Return a row for each run: its load, and the errors of the main quantities in per cent."""
    wanted = {
        "step, each": "step_mean_absolute",
        "step, all": "step_total",
        "TTFT mean": "ttft_mean",
        "TPOT mean": "tpot_mean",
        "E2E mean": "e2e_mean",
        "E2E p99": "e2e_p99",
        "tokens/s": "output_rate",
    }
    rows = {
        run.name: {"load": run.load} | {title: 100 * run.errors[key] for title, key in wanted.items()}
        for run in validation.runs
    }
    return pd.DataFrame.from_dict(rows, orient="index").replace({np.nan: None})


def plot_run(validation: Validation, name: str) -> Figure:
    """Draw a run beside its simulation."""
    return validation.plot(next(run for run in validation.runs if run.name == name))


def scoreboard(validations: dict[str, Validation]) -> pd.DataFrame:
    """Return, for each twin, how many bars are met, and the largest errors of runs below a load of 0.8, in per cent."""
    rows = {}
    for name, validation in validations.items():
        bars = validation.bars
        judged, calm = bars[bars["met"].notna()], bars[bars["regime"].isin(["ρ < 0.5", "0.5–0.8"])]
        worst = calm.groupby("quantity")["error"].agg(lambda own: 100 * own.abs().max())
        rows[name] = {"bars met": f"{int(judged['met'].sum())} of {len(judged)}", **worst.round(1)}
    return pd.DataFrame.from_dict(rows, orient="index")
