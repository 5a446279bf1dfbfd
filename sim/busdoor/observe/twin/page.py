"""A server's twin as a page: how far its predictions were off, and which part is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor._version import __version__
from busdoor.calibration.calibration import Calibration
from busdoor.core.format import duration
from busdoor.core.json import read_object
from busdoor.core.saved import read_csv
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance, words_used
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.observe.twin.folder import CALIBRATION, NEXT, PARTS, TABLE
from busdoor.observe.twin.text import (
    REGIME_COLUMNS,
    SHOWN,
    regime_cells,
    run_cells,
    split_lines,
    what_was_observed,
)
from busdoor.plots.style import INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_IN = (2.5, 3.3)  # height, width: four beside one another on a desktop
_BAR = "#3f92c4"  # of a part; the total is ink, as on a validation's page
_BUDGET = (
    "What each part adds to the error of the predicted mean E2E latency, in milliseconds. Client: "
    "it sent late, which no prediction has. Front end: HTTP and tokenizer, there and back. Step "
    "time and host: their errors in the measured iterations of a request. Queue and scheduler: the "
    "rest, what these make of the queue."
)
_RUNS = "Relative errors: predicted over measured, less one; predictions.csv has all quantities."
_GAIN = "Ratio of saturated output tokens per second, of the same burst sent both ways."
WORDS = {
    "ρ": "Load: the rate of arrivals over what the server can carry. Queueing multiplies an error "
    "of the step time by 1/(1 − ρ).",
    "error": "Predicted over measured, less one; in milliseconds predicted less measured. Over "
    "several runs: the mean, and in brackets the least and the largest.",
    "95 % of a mean": "How far the measured mean may lie from that of many more such requests.",
    "TTFT": "Time to first token: from when a request was due until its first chunk arrived.",
    "TPOT": "Time per output token after the first.",
    "E2E": "End-to-end latency: from when it was due until its last chunk arrived.",
}


def twin_page(folder: Path) -> Page:
    """Return the twin of a server as a page, from the folder that `busdoor twin --url` wrote."""
    table, parts = read_csv(folder / TABLE), read_object(folder / PARTS)
    calibration = Calibration.load(folder / CALIBRATION)
    runs = table["run"].nunique()
    facts = (
        f"{what_was_observed(parts['server'])} {len(calibration.about['runs'])} runs to calibrate "
        f"on, {runs} predicted before they were measured."
    )
    sections = (
        Section("Errors by load", _regimes(table)),
        *_gains(parts["gains"]),
        *_budgets(parts["e2e_error_s"]),
        Section("Where the TTFT comes from", _splits(parts)),
        Section("Run by run", html_table(run_cells(table), ("ρ", *SHOWN.values(), "n"), _RUNS)),
        *_next(folder / NEXT),
        words_used(WORDS),
        provenance(calibration.to_dict(), {"busdoor": __version__}),
    )
    return Page("How far is the twin off?", facts, _verdict(table), sections)


def _next(file: Path) -> list[Section]:
    """Return which measurement to make next; earlier versions wrote none."""
    if not file.exists():
        return []
    return [
        Section("What to measure next", bullets(f"{one}." for one in read_object(file)["lines"]))
    ]


def _verdict(table: pd.DataFrame) -> str:
    """Return the largest errors of mean latencies where the server was not saturated."""
    calm = table[table["load"] < 1]
    where = "below saturation" if len(calm) else "in all runs"
    chosen = calm if len(calm) else table
    found = [
        f"{name} within {100 * chosen.loc[chosen['quantity'] == key, 'error'].abs().max():.0f} %"
        for key, name in (("e2e_mean", "the mean E2E latency"), ("ttft_mean", "the mean TTFT"))
    ]
    return f"Predicted {where}: {', '.join(found)}."


def _regimes(table: pd.DataFrame) -> str:
    rows = regime_cells(table)
    return html_table(rows, REGIME_COLUMNS, "Mean error of each load regime's runs.")


def _gains(gains: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not gains:
        return []
    rows = [
        (
            f"{one['continuous']} over {one['static']}",
            [f"{one['predicted']:.2f}×", f"{one['measured']:.2f}×"],
        )
        for one in gains
    ]
    table = html_table(rows, ("predicted", "measured"), _GAIN)
    return [Section("What continuous batching gains", table)]


def _budgets(budgets: Mapping[str, Mapping[str, float]]) -> list[Section]:
    """Draw every run's parts."""
    if not budgets:
        return []
    plots = [
        figure(
            partial(_bars, parts=parts),
            f"{run}: {1e3 * sum(parts.values()):+.1f} ms",
            *_SIZE_IN,
        )
        for run, parts in budgets.items()
    ]
    body = f'<p>{_BUDGET}</p><div class="plots small">{"".join(plots)}</div>'
    return [Section("What the error is made of", body)]


def _bars(ax: Axes, parts: Mapping[str, float]) -> None:
    shown = {**parts, "total": sum(parts.values())}
    names = [f"{name}  {1e3 * value:+.1f}" for name, value in shown.items()]
    colors = [INK if name == "total" else _BAR for name in shown]
    ax.barh(names[::-1], [1e3 * value for value in shown.values()][::-1], color=colors[::-1])
    ax.axvline(0, color=PALE, linewidth=1.0)
    ax.set_xlabel("ms")


def _splits(parts: Mapping[str, Any]) -> str:
    splits = parts["ttft_s"]
    front_end, *by_run = split_lines(parts["front_end_s"], splits)
    if not by_run:
        return bullets([front_end])
    columns = list(next(iter(splits.values())))
    rows = [
        (run, [duration(1e3 * own[part]) for part in columns] + [duration(1e3 * sum(own.values()))])
        for run, own in splits.items()
    ]
    caption = "Parts of the measured mean TTFT, by the client's and the engine's own times."
    return html_table(rows, [*columns, "TTFT"], caption) + bullets([front_end])
