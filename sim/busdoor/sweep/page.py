"""The report of a sweep, from the table in its folder."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pandas as pd

from busdoor.config.subject import subject
from busdoor.core.format import NOTHING, number
from busdoor.core.json import read_object
from busdoor.core.names import listed
from busdoor.core.saved import check_columns, read_csv
from busdoor.html.page import Page, Section
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.sweep.figures import axis_of, plot_points
from busdoor.sweep.summary_text import verdict

MOST_ROWS = 500  # of a sweep on a page: more is a job for the CSV beside it
# What a sweep's page shows of each point, and its head; the CSV has every metric.
SWEEP_METRICS = {
    "output_throughput": "output (tokens/s)",
    "p99_ttft_ms": "TTFT p99 (ms)",
    "p99_tpot_ms": "TPOT p99 (ms)",
    "p99_e2el_ms": "E2E p99 (ms)",
    "median_ttft_ms": "TTFT p50 (ms)",
    "bubble_share": "idle slot time (share)",
    "kv_wasted_share": "KV wasted (share)",
    "saturated": "overloaded (share of runs)",
    "status": "status",
}
# Over the first key that is a number.
_DRAWN = {"output_throughput": "Output tokens/s", "p99_e2el_ms": "E2E latency, p99"}
_PANEL_IN = 4.2  # high: the key of up to eight lines stands below the axes
_BREAKS = str.maketrans({".": ".\u200b", "_": "_\u200b"})  # where a long key may wrap


def sweep_page(folder: Path) -> Page:
    """Return a sweep as a page: the sweep.csv that `busdoor sweep` wrote into its folder."""
    file = folder / "sweep.csv"
    table = check_columns(read_csv(file), file, (), ("key", "status"))
    swept = list(table.columns[: list(table.columns).index("status")]) if "status" in table else []
    keys = [name for name in swept if name != "key"]
    failed = table[table["status"] == "failed"] if "status" in table else table.head(0)
    varied = [name for name in keys if len(table[name].unique()) > 1]
    sections = [*_lines(table, varied), Section("The points", _points(table, keys))]
    if len(failed):
        errors = failed["error"].value_counts()
        lines = bullets(f"{error} ({count:,})" for error, count in errors.items())
        sections.append(Section("What failed", lines))
    facts = f"{len(table):,} points, {len(failed):,} of them failed"
    if len(table) > MOST_ROWS:
        left_out = len(table) - MOST_ROWS
        facts += f"; the first {MOST_ROWS} are shown, and sweep.csv has {left_out:,} more"
    return Page(_title(folder, varied), facts, verdict(table, varied), tuple(sections))


def _title(folder: Path, varied: list[str]) -> str:
    about = folder / "sweep.json"  # a folder of before 0.2 names no configuration
    config = read_object(about).get("config") if about.exists() else None
    asked = f"What if: {listed(varied)}?" if varied else "What if?"
    return f"{asked} {subject(config, without=varied)}" if config else asked


def _lines(table: pd.DataFrame, varied: list[str]) -> list[Section]:
    """Draw the points as lines, where a number is varied and the lines are few enough to tell."""
    axis = axis_of(table, varied)
    if axis is None:
        return []
    panels = [
        figure(
            lambda ax, metric=metric: plot_points(table, varied, axis, metric, ax),  # type: ignore[misc]
            f"{words} over {axis}",
            height_in=_PANEL_IN,
        )
        for metric, words in _DRAWN.items()
        if metric in table and table[metric].notna().any()
    ]
    return [Section("At a glance", f'<div class="plots">{"".join(panels)}</div>')] if panels else []


def _points(table: pd.DataFrame, keys: list[str]) -> str:
    """Return sliders and the points, those with the most tokens per second first."""
    ranked = table.head(MOST_ROWS)
    if "output_throughput" in ranked:
        ranked = ranked.sort_values("output_throughput", ascending=False, kind="stable")
    metrics = [name for name in SWEEP_METRICS if name in ranked]
    if "status" in metrics and (ranked["status"] == "done").all():
        metrics.remove("status")
    shown = ranked[[*keys, *metrics]].rename(columns=SWEEP_METRICS)
    return _sliders(table.head(MOST_ROWS)[keys]) + _table(shown)


def _sliders(swept: pd.DataFrame) -> str:
    """Return a slider per swept key, by which the table below shows the rows of one value."""
    rows = ""
    for place, name in enumerate(swept):
        values = [_number(value) for value in swept[name].unique()]
        rows += (
            f'<label for="sift-{place}">{escape(str(name))}</label>'
            f'<input id="sift-{place}" type="range" min="0" max="{len(values)}" value="0" '
            f'aria-label="{escape(str(name))}" data-values="{escape(json.dumps(values))}">'
            "<output></output>"
        )
    return f'<form class="sift" hidden>{rows}</form>'


def _table(table: pd.DataFrame) -> str:
    """Return a data frame as a table, its first column as the rows' titles."""
    rows = [
        (_number(row[0]), [_number(cell) for cell in row[1:]])
        for row in table.itertuples(index=False, name=None)
    ]
    first, *others = (str(name).translate(_BREAKS) for name in table.columns)
    return html_table([(first, [name.replace(" (", "\n(") for name in others]), *rows])


def _number(value: object) -> str:
    """Write a number shortly, and anything else as it is.

    >>> _number(22.684), _number(float("nan")), _number("vllm"), _number(12345.6), _number(4.0)
    ('22.7', '–', 'vllm', '12,346', '4')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    return f"{value:,.0f}" if float(value).is_integer() else number(value)
