"""The reports of a capacity study and of a sweep, from the tables in their folders."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from busdoor.capacity.estimate import STABLE
from busdoor.capacity.figures import longest, plot_target
from busdoor.capacity.folder import Saved, load
from busdoor.core.saved import check_columns, read_csv
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import html_table
from busdoor.metrics.slo import SLO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
# What the page calls the columns of a plan.
_PLAN = {
    "replicas": "servers",
    "gpus": "GPUs",
    "rate_per_replica": "requests/s each",
    "headroom": "may grow by",
    "may_fall": "may fall by",
    "cost_per_hour": "cost/h",
    "cost_per_million_output_tokens": "cost/M output tokens",
}
_TARGET_IN = 5.0  # high: a legend of seven policies stands below the axes


def capacity_page(folder: Path) -> Page:
    """Return a capacity study as a page.

    Parameters
    ----------
    folder : Path
        What `busdoor capacity` wrote: capacity.json, points.csv, and plan.csv if a rate was asked for.
    """
    saved = load(folder)
    study = saved.about
    sections = [Section("The highest rates", _rates(study["policies"], saved.slo)), _targets(saved)]
    if (folder / "plan.csv").exists():
        sections.insert(1, Section("GPUs for the rate", _table(read_csv(folder / "plan.csv").rename(columns=_PLAN))))
    sections.append(provenance(study["config"], study["versions"]))
    runs = f"{study['num_runs']:,} runs, {study['num_requests']:,} requests, {study['replications']} replications"
    if study.get("num_refused"):
        runs += (
            f"; {study['num_refused']:,} requests ({100 * study['refused_share']:.3g} %) are refused, and are no load"
        )
    return Page(f"How much within {study['slo_text']}?", runs, study["verdict"], tuple(sections))


def _rates(policies: dict[str, dict[str, float | str | None]], slo: SLO) -> str:
    """Return one row per policy, with its rate, the bracket of it and what binds; beneath, why some have none."""
    slow = any(own.get("least") for own in policies.values())
    columns = ["request_rate", *["least"] * slow, "low", "high"]
    rows = [
        (name, [*(_number(own.get(key)) for key in columns), _binding(str(own["binds"]), slo)])
        for name, own in policies.items()
    ]
    head = [("policy", ["requests/s", *(["meets from", "to"] if slow else ["meets"]), "misses", "what binds"])]
    remarks = [
        f"<li>{escape(name)}: {escape(str(own['reason']))}.</li>" for name, own in policies.items() if own["reason"]
    ]
    table = html_table([*head, *rows], caption="Requests per second that one server carries within the SLO.")
    return f"{table}<ul>{''.join(remarks)}</ul>" if remarks else table


def _binding(key: str, slo: SLO) -> str:
    """Name what binds as the terminal does."""
    if not key:
        return "–"
    return "all that it carries" if key == STABLE else slo.target(key).name


def _targets(study: Saved) -> Section:
    """Draw every target that was measured at some rate, with its limit."""
    plots = [
        figure(partial(_target, study=study, key=target.key), str(target), height_in=_TARGET_IN)
        for target in study.slo.targets
        if len(longest(study.points, target.key))
    ]
    return Section("The SLO against the rate", f'<div class="plots">{"".join(plots)}</div>')


def _target(ax: Axes, study: Saved, key: str) -> None:
    plot_target(study, key, ax=ax)
    ax.set_ylabel("")  # the caption says it
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()  # beside the axes there is no room; below, the layout makes some
    ax.get_figure().legend(loc="outside lower center")  # type: ignore[union-attr]


def sweep_page(folder: Path) -> Page:
    """Return a sweep as a page.

    Parameters
    ----------
    folder : Path
        What `busdoor sweep` wrote: sweep.csv.
    """
    file = folder / "sweep.csv"
    table = check_columns(read_csv(file), file, (), ("key", "status"))
    swept = list(table.columns[: list(table.columns).index("status")]) if "status" in table else []
    shown = table[[name for name in (*swept, *SWEEP_METRICS) if name in table and name != "key"]]
    failed = table[table["status"] == "failed"] if "status" in table else table.head(0)
    facts = f"{len(table):,} points, {len(failed):,} of them failed"
    sections = [Section("The points", _table(shown.head(MOST_ROWS)))]
    if len(failed):
        errors = failed["error"].value_counts()
        items = "".join(f"<li>{escape(str(error))} ({count:,})</li>" for error, count in errors.items())
        sections.append(Section("What failed", f"<ul>{items}</ul>"))
    left_out = len(table) - MOST_ROWS
    verdict = f"The first {MOST_ROWS} points are shown; sweep.csv has {left_out:,} more." if left_out > 0 else ""
    return Page("What if?", facts, verdict, tuple(sections))


def _table(table: pd.DataFrame) -> str:
    """Return a data frame as a table, its first column as the rows' titles."""
    rows = [(str(row[0]), [_number(cell) for cell in row[1:]]) for row in table.itertuples(index=False, name=None)]
    first, *others = (str(name) for name in table.columns)
    return html_table([(first, others), *rows])


def _number(value: object) -> str:
    """Write a number shortly, and anything else as it is.

    Examples
    --------
    >>> _number(22.684), _number(float("nan")), _number("vllm"), _number(12345.6)
    ('22.7', '–', 'vllm', '12,346')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
