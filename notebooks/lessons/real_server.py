"""Runs of the real vLLM on a CPU beside their predictions: tests/measured/vllm_server."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busdoor.calibration import Calibration
from busdoor.calibration.teacher_forcing import Replayed, policy_of, serve, trace_of
from busdoor.core.json import read_object
from busdoor.core.saved import read_csv
from busdoor.observe.twin.folder import CALIBRATION, PARTS, RUNS, TABLE, Seen, load_run
from busdoor.plots.style import INK, PALE, new_figure, styled
from busdoor.validation.errors import batch_agreement, statistics, step_errors

FOLDER = Path(__file__).parents[2] / "tests" / "measured" / "vllm_server"
# Of a mean, below a load of 0.8; or twice the spread of the repetitions.
BARS = {"e2e_mean": 0.05, "ttft_mean": 0.10}
STEP_BAR = 0.02  # of the step time in all, beside its drift
REPETITIONS = 3
_PART_COLORS = ("#afb8c1", "#c4501b", "#8ec3e6", "#3f92c4")  # client, front end, queue, steps


@cache
def real_run(name: str) -> Seen:
    """Return a run, such as load-0.3-1: what was sent, and which repetition it is.

    Examples
    --------
    >>> seen = real_run("burst-1")
    >>> len(seen.client.requests), seen.engine.meta["policy_config"]["max_num_seqs"]
    (300, 16)
    """
    return load_run(FOLDER / RUNS / name)


def kinds() -> list[str]:
    """Return what was sent, three times each.

    Examples
    --------
    >>> kinds()[:5]
    ['burst', 'load-0.3', 'load-0.55', 'load-0.8', 'load-1.1']
    """
    return sorted({path.name.rpartition("-")[0] for path in (FOLDER / RUNS).iterdir()})


def runs_of(kind: str) -> list[str]:
    """Return the names of the repetitions of a kind."""
    return [f"{kind}-{number}" for number in range(1, REPETITIONS + 1)]


def repeated(quantity: str) -> pd.DataFrame:
    """Put the prediction of a latency of a kind beside the mean of all its repetitions.

    A repetition that was calibrated on counts to the mean and spread, since the machine of that
    time is among those that a prediction may meet.

    Returns
    -------
    DataFrame
        By kind: load, predicted_s, measured_s (the mean); in per cent of it spread_% (standard
        deviation of the repetitions), error_% and bar_% (at most, or twice the spread); met.

    Examples
    --------
    >>> f"{repeated('e2e_mean').loc['load-0.55', 'load']:.2f}"
    '0.53'
    """
    table = read_csv(FOLDER / TABLE)
    table = table[table["quantity"] == quantity].set_index("run")
    rows = {}
    for kind in kinds():
        own = table.loc[[run for run in runs_of(kind) if run in table.index]]
        measured = _measured(kind, quantity, own)
        rows[kind] = {
            "load": own["load"].iloc[0],
            "predicted_s": own["predicted"].iloc[0],
            "measured_s": measured.mean(),
            "spread_%": 100 * measured.std(ddof=1) / measured.mean(),
        }
    found = pd.DataFrame(rows).T
    found["error_%"] = 100 * (found["predicted_s"] / found["measured_s"] - 1)
    found["bar_%"] = np.maximum(100 * BARS.get(quantity, BARS["e2e_mean"]), 2 * found["spread_%"])
    return found.assign(met=found["error_%"].abs() <= found["bar_%"])


def _measured(kind: str, quantity: str, own: pd.DataFrame) -> np.ndarray:
    """Return a quantity of all repetitions: those calibrated on are in no table of predictions."""
    latency, _, statistic = quantity.partition("_")
    fitted = [run for run in runs_of(kind) if run not in own.index]
    more = [statistics(real_run(run).client)[latency, statistic] for run in fitted]
    return np.array([*own["measured"], *more])


def gains() -> pd.DataFrame:
    """Return the gain, by repetition: predicted and measured.

    Examples
    --------
    >>> len(gains())
    3
    """
    found = pd.DataFrame(read_object(FOLDER / PARTS)["gains"]).set_index("continuous")
    return found[["predicted", "measured"]].add_suffix("_gain").rename_axis(None)


def batches_that_repeat(name: str) -> tuple[str, int]:
    """Replay a run with its own durations: the share of batches alike, and its preemptions.

    Examples
    --------
    >>> batches_that_repeat("burst-1")
    ('100%', 0)
    """
    engine = real_run(name).engine
    assert engine is not None
    trace = trace_of(engine)
    afterwards = Calibration.load(FOLDER / CALIBRATION).step_time
    durations = Replayed(engine.iterations["duration_s"].to_numpy(dtype=float), afterwards)
    replayed = serve(trace, policy_of(engine.meta, trace), durations, lookahead=0)
    preemptions = int(engine.requests["num_preemptions"].sum())
    return f"{batch_agreement(engine, replayed)['same']:.0%}", preemptions


def step_totals() -> pd.DataFrame:
    """Return the error of the sum of all step times, by kind and repetition; given the batches.

    Examples
    --------
    >>> step_totals().shape
    (8, 3)
    """
    step_time = Calibration.load(FOLDER / CALIBRATION).step_time
    rows = {}
    for kind in kinds():
        engines = [real_run(run).engine for run in runs_of(kind)]
        rows[kind] = [step_errors(own, step_time).total for own in engines if own is not None]
    return pd.DataFrame(rows, index=range(1, REPETITIONS + 1)).T


@styled
def plot_repetitions() -> Figure:
    """Draw each measured repetition over its prediction: mean E2E and mean TTFT, by kind."""
    names = kinds()[::-1]
    table = read_csv(FOLDER / TABLE).set_index(["run", "quantity"])
    figure = new_figure(10.0, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (quantity, title) in zip(
        panels, {"e2e_mean": "mean E2E", "ttft_mean": "mean TTFT"}.items(), strict=True
    ):
        for place, kind in enumerate(names):
            own = [
                table.loc[(run, quantity)]
                for run in runs_of(kind)
                if (run, quantity) in table.index
            ]
            ratios = [row["measured"] / row["predicted"] for row in own]
            ax.plot(ratios, [place] * len(ratios), "o", color=INK, alpha=0.6)
        ax.axvline(1.0, color=PALE)
        ax.set(title=f"{title}: measured over predicted", xlim=(0.3, 3.3), xscale="log")
        ax.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
        ax.minorticks_off()
    panels[0].set_yticks(range(len(names)), names)
    return figure


@styled
def plot_ttft() -> Figure:
    """Draw where the mean TTFT of the first repetition of each rate comes from."""
    splits = read_object(FOLDER / PARTS)["ttft_s"]
    names = [f"load-{load}-1" for load in ("0.3", "0.55", "0.8")]
    figure = new_figure(7.0, 2.4)
    ax = figure.subplots()
    left = np.zeros(len(names))
    for part, color in zip(splits[names[0]], _PART_COLORS, strict=True):
        widths = np.array([1e3 * splits[name][part] for name in names])
        ax.barh(names, widths, left=left, color=color, label=part)
        left += widths
    ax.invert_yaxis()
    ax.set_xlabel("mean TTFT (ms)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def third_party() -> dict[str, str]:
    """Return what `benchmarks/third_party.py` found: the gain of transformers over itself.

    Examples
    --------
    >>> third_party()["same batches"]
    '100%'
    """
    kept = read_object(FOLDER.parent / "third_party.json")
    found = np.array(kept["measured_gains"])
    return {
        "predicted": f"{kept['predicted_gain']:.2f}",
        "measured": f"{found.mean():.2f} ± {found.std(ddof=1):.2f} ({len(found)} times)",
        "same batches": f"{kept['same_batches']:.0%}",
    }
