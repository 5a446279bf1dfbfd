"""The report of a validation: how far the simulator is from what was measured, and why."""

from __future__ import annotations

from functools import partial
from html import escape
from math import isfinite
from typing import TYPE_CHECKING

from busdoor.calibration.figures import plot_drift, predicted_vs_measured
from busdoor.core.format import as_percent
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance, timelines, words_used
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.validation.figures import (
    LATENCY_TITLES,
    plot_budget,
    plot_knee,
    plot_latency,
    plot_ratios,
)
from busdoor.validation.limits_text import limit_lines
from busdoor.validation.run import RunValidation
from busdoor.validation.table_text import (
    blame_lines,
    gain_lines,
    knee_lines,
    run_rows,
    threshold_rows,
)
from busdoor.validation.validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_POINTS = 600  # of the cloud of iterations; more weigh on the page and look the same
_SIZE_IN = (2.5, 3.3)  # height, width: four beside one another on a desktop
_PLAY = (
    "The same requests, served by the machine and by the simulator. Press play: each row is a "
    "slot, and fills as its answer is written."
)
_BUDGET = (
    "What each part adds to the relative error of the mean E2E latency. Scheduling: our scheduler, "
    "given the measured durations. Step model and host: their seconds in the measured iterations. "
    "Feedback: what queueing makes of these as they change the batches."
)
_CAPTION = (
    "The largest error of each regime's runs, what it is in milliseconds, its 95 % interval, and "
    "the iterations or requests it is over; ✓ within its bar, ✗ beyond it, in brackets where no "
    "bar binds (from ρ = 0.8 on)."
)
_RUNS = (
    "Relative errors: simulated over measured, less one; in milliseconds; and the 95 % interval of "
    "a bootstrap over blocks of consecutive requests or iterations."
)
WORDS = {
    "step time": "How long an iteration takes. Each: mean absolute error; in all: error of their "
    "sum. Both on the measured batches, so that no queueing is in them.",
    "TTFT": "Time to first token: from a request's arrival until its answer begins.",
    "TPOT": "Time per output token after the first.",
    "ITL": "Time between two tokens, over all of them.",
    "E2E": "End-to-end latency: from arrival until the answer is complete.",
    "ρ": "Load: the rate of arrivals over what the policy can carry. Queueing multiplies an error "
    "of the step time by 1/(1 − ρ).",
    "transient": "A run whose queue grew, or that was shorter than its relaxation time (mean E2E "
    "latency / (1 - ρ)): it shows how a queue builds up, not the load it is named after. Marked t.",
    "knee": "The rate at which the mean E2E latency is twice that of the lowest rate.",
    "gain": "Ratio of saturated output tokens per second, continuous over static batching, on the "
    "same GPU, model and memory: of two bursts.",
    "E2E ratio": "Ratio of mean E2E latencies, static over continuous batching, on the same "
    "requests. It depends on the load, and where one cannot keep up, on how long the run is.",
}


def validation_page(validation: Validation) -> Page:
    """Return a validation as a page."""
    sections = (
        _bars(validation),
        *_gain(validation),
        _runs(validation),
        *_knee(validation),
        _budgets(validation),
        _figures(validation),
        _played(validation),
        words_used(WORDS),
        provenance(
            {"step_time": validation.step_time.describe(), "calibration": dict(validation.about)},
            _versions(validation),
        ),
    )
    return Page("Is the simulator right?", _facts(validation), validation.verdict, sections)


def _facts(validation: Validation) -> str:
    runs, about = validation.runs, validation.about
    meta = runs[0].measured.meta
    where = [
        str(meta.get(key) or about.get(key))
        for key in ("model", "gpu")
        if meta.get(key) or about.get(key)
    ]
    requests = sum(len(run.measured.requests) for run in runs)
    count = f"{len(runs)} measured run{'s' * (len(runs) > 1)}, {requests:,} requests"
    return "; ".join([count, " on ".join(where)] if where else [count])


def _bars(validation: Validation) -> Section:
    columns, rows = threshold_rows(validation, detailed=True)
    table = f"<p>{_CAPTION}</p>{html_table(rows, columns)}"
    lines = [*blame_lines(validation), *limit_lines(validation)]
    return Section("Are the bars met?", table.replace("✗", "<strong>✗</strong>") + bullets(lines))


def _gain(validation: Validation) -> list[Section]:
    tables = {"Gain": validation.gain, "E2E ratio": validation.e2e_ratio}
    plots = [
        figure(
            lambda ax, table=table, name=name: plot_ratios(table, name, ax),  # type: ignore[misc]
            f"{name}, measured and simulated",
            1.3 + 0.9 * len(table),
        )
        for name, table in tables.items()
        if len(table)
    ]
    if not plots:
        return []
    body = f'<div class="plots wide">{"".join(plots)}</div>{bullets(gain_lines(validation))}'
    return [Section("What continuous batching gains", body)]


def _runs(validation: Validation) -> Section:
    names = [run.name for run in validation.runs]
    rows = [
        ("", [run.regime for run in validation.runs]),
        *run_rows(validation.runs, detailed=True),
    ]
    return Section("Run by run", f"<p>{_RUNS}</p>{html_table(rows, names)}")


def _knee(validation: Validation) -> list[Section]:
    lines = knee_lines(validation)
    if not lines:
        return []
    plot = figure(
        partial(plot_knee, validation),
        "Mean E2E latency against the rate; lines where it has doubled",
    )
    return [Section("The knee", f'<div class="plots">{plot}</div>{bullets(lines)}')]


def _budgets(validation: Validation) -> Section:
    """Draw every run's parts on one scale."""
    percents = [100 * value for run in validation.runs for value in run.budget.dropna()]
    ends = 1.05 * min([0.0, *percents]), 1.05 * max([0.0, *percents]) or 1.0
    plots = [
        figure(
            partial(_budget, run=run, ends=ends),
            f"{run.name} ({as_percent(run.budget['total'])})",
            *_SIZE_IN,
        )
        for run in validation.runs
    ]
    return Section(
        "What the error is made of",
        f'<p>{_BUDGET}</p><div class="plots small">{"".join(plots)}</div>',
    )


def _budget(ax: Axes, run: RunValidation, ends: tuple[float, float]) -> None:
    plot_budget(ax, run)
    ax.set(title="", xlim=ends)


def _figures(validation: Validation) -> Section:
    """Draw each run's latencies and step times."""
    body = "".join(f"<h3>{escape(run.name)}</h3>{_panels(run)}" for run in validation.runs)
    return Section("Measured and simulated", body)


def _panels(run: RunValidation) -> str:
    errors = {name: run.errors[f"{name}_mean"] for name in LATENCY_TITLES}
    plots = [
        figure(
            partial(_latency, run=run, name=name),
            f"{LATENCY_TITLES[name]}, mean {as_percent(error)}",
            *_SIZE_IN,
        )
        for name, error in errors.items()
        if isfinite(error)  # where answers come with their batch, there is no time per token
    ]
    if len(run.measured.iterations):
        plots.append(figure(partial(_cloud, run=run), "Step time: a point each", *_SIZE_IN))
        plots.append(figure(partial(_drift, run=run), "Drift: measured/predicted", *_SIZE_IN))
    return f'<div class="plots small">{"".join(plots)}</div>'


def _latency(ax: Axes, run: RunValidation, name: str) -> None:
    plot_latency(ax, run, name)
    ax.set_ylabel("share (%)")
    ax.legend(loc="lower right")


def _cloud(ax: Axes, run: RunValidation) -> None:
    predicted_vs_measured(ax, run.measured, run.predicted_s, _POINTS)


def _drift(ax: Axes, run: RunValidation) -> None:
    plot_drift(ax, run.measured, run.predicted_s)
    ax.set_title("")


def _played(validation: Validation) -> Section:
    """Play the busiest run that its server can carry beside its simulation."""
    carried = [run for run in validation.runs if run.load < 1] or list(validation.runs)
    run = max(carried, key=lambda run: run.load if run.load < 1 else 0.0)
    title = f"Slot by slot: {run.name}"
    return timelines(title, _PLAY, {"measured": run.measured, "simulated": run.simulated})


def _versions(validation: Validation) -> dict[str, str]:
    versions: dict[str, str] = dict(validation.runs[0].simulated.meta.get("versions", {}))
    return versions
