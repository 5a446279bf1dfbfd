"""A capacity study as a page, from the tables in its folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from busdoor.capacity.data import Saved
from busdoor.capacity.figures import longest, plot_target
from busdoor.capacity.folder import load
from busdoor.capacity.table_text import Rows, rate_rows, sizing_rows
from busdoor.config.subject import subject
from busdoor.core.saved import read_csv
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.plots.hatches import drop_legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TARGET_IN = 5.0  # high: a legend of seven policies stands below the axes


def capacity_page(folder: Path) -> Page:
    """Return a capacity study as a page: capacity.json, points.csv, and plan.csv for a rate."""
    saved = load(folder)
    study = saved.about
    sections = [Section("The highest rates", _rates(saved)), _targets(saved)]
    if (folder / "plan.csv").exists():
        sections.insert(1, _sizing(folder / "plan.csv"))
    if lines := (study.get("uncertainty") or {}).get("lines"):
        sections.append(Section("How sure this is", bullets(f"{line}." for line in lines)))
    sections.append(provenance(study["config"], study["versions"]))
    runs = (
        f"{study['num_runs']:,} runs, {study['num_requests']:,} requests, "
        f"{study['replications']} replications"
    )
    if study.get("num_refused"):
        share = f"{100 * study['refused_share']:.3g} %"
        runs += f"; {study['num_refused']:,} requests ({share}) are refused, and are no load"
    if "prediction" in study:
        runs += f"; {study['prediction']}"
    return Page(
        f"Capacity within {study['slo_text']}: {subject(study['config'])}",
        runs,
        study["verdict"],
        tuple(sections),
    )


def _rates(saved: Saved) -> str:
    """Return one row per policy, the highest rate first, and below why some have no rate."""
    columns, rows = rate_rows(saved)
    rows = _sorted(rows, -saved.table["low"].astype(float))
    reasons = {
        name: own["reason"] for name, own in saved.about["policies"].items() if own["reason"]
    }
    table = html_table(
        [("policy", columns), *rows], caption="Requests per second that one server carries."
    )
    return table + bullets(f"{name}: {reason}." for name, reason in reasons.items())


def _sizing(file: Path) -> Section:
    plan = read_csv(file).set_index("policy")
    columns, rows = sizing_rows(plan)
    rows = _sorted(rows, plan["replicas"].astype(float))
    return Section("GPUs for the rate", html_table([("policy", columns), *rows]))


def _sorted(rows: Rows, by: pd.Series[float]) -> Rows:
    """Return rows in the order of a value each, those without one last: the winner comes first."""
    return [rows[place] for place in by.reset_index(drop=True).sort_values(kind="stable").index]


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
    ax.set_ylabel("")  # the caption has it
    drop_legend(ax)  # no room beside the axes; the layout makes some below
    ax.get_figure().legend(loc="outside lower center")  # type: ignore[union-attr]
