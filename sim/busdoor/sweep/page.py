"""The report of a sweep, from the table in its folder."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pandas as pd

from busdoor.core.format import NOTHING, number
from busdoor.core.names import listed
from busdoor.core.saved import check_columns, read_csv
from busdoor.html.page import Page, Section
from busdoor.html.tables import bullets, html_table

MOST_ROWS = 500  # of a sweep on a page: more is a job for the CSV beside it
# What a sweep's page shows of each point; the CSV has every metric.
SWEEP_METRICS = (
    "status",
    "output_throughput",
    "median_ttft_ms",
    "p99_ttft_ms",
    "p99_tpot_ms",
    "p99_e2el_ms",
    "bubble_share",
    "kv_wasted_share",
    "saturated",
)


def sweep_page(folder: Path) -> Page:
    """Return a sweep as a page: the sweep.csv that `busdoor sweep` wrote into its folder."""
    file = folder / "sweep.csv"
    table = check_columns(read_csv(file), file, (), ("key", "status"))
    swept = list(table.columns[: list(table.columns).index("status")]) if "status" in table else []
    shown = table[[name for name in (*swept, *SWEEP_METRICS) if name in table and name != "key"]]
    failed = table[table["status"] == "failed"] if "status" in table else table.head(0)
    facts = f"{len(table):,} points, {len(failed):,} of them failed"
    keys = [name for name in swept if name != "key"]
    points = shown.head(MOST_ROWS)
    sections = [Section("The points", _sliders(points[keys]) + _table(points))]
    if len(failed):
        errors = failed["error"].value_counts()
        lines = bullets(f"{error} ({count:,})" for error, count in errors.items())
        sections.append(Section("What failed", lines))
    left_out = len(table) - MOST_ROWS
    verdict = (
        f"The first {MOST_ROWS} points are shown; sweep.csv has {left_out:,} more."
        if left_out > 0
        else ""
    )
    varied = [name for name in keys if len(table[name].unique()) > 1]
    return Page(
        f"What if: {listed(varied)}?" if varied else "What if?", facts, verdict, tuple(sections)
    )


def _sliders(swept: pd.DataFrame) -> str:
    """Return a slider per swept key, by which the table below shows the rows of one value."""
    rows = ""
    for place, name in enumerate(swept):
        values = [_number(value) if place else str(value) for value in swept[name].unique()]
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
        (str(row[0]), [_number(cell) for cell in row[1:]])
        for row in table.itertuples(index=False, name=None)
    ]
    first, *others = (str(name) for name in table.columns)
    return html_table([(first, others), *rows])


def _number(value: object) -> str:
    """Write a number shortly, and anything else as it is.

    >>> _number(22.684), _number(float("nan")), _number("vllm"), _number(12345.6)
    ('22.7', '–', 'vllm', '12,346')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    return number(value)
