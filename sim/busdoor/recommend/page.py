"""A recommendation as a page, from the tables in its folder."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.core.format import number
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.metrics.slo import SLO
from busdoor.recommend.figures import plot_front
from busdoor.recommend.folder import load
from busdoor.recommend.table_text import HEADS, LADDER_HEADS, place_rows

_SIZE = 900, 420  # of the front that shows what a point is, in its own units
_MARGIN = 60
_COLORS = {"meets": "#1a9850", "misses": "#999999", "open": "#e08214"}


def recommend_page(folder: Path) -> Page:
    """Return a recommendation as a page.

    Parameters
    ----------
    folder : Path
        What `busdoor recommend` wrote.
    """
    saved = load(folder)
    about, table = saved.about, saved.table
    latency = SLO.from_table(about["slo"]).targets[0].name
    sections = [Section("What to run", _winner(about))] if about.get("winner") else []
    sections += [
        Section("Cost against latency", hover_front(table, latency)),
        Section(
            "For print",
            figure(lambda ax: plot_front(table, latency, ax=ax), "Cost against latency"),
        ),
        Section(
            "Everything raced",
            html_table(
                [("servers", (*HEADS, "setup")), *place_rows(table, len(table), setups=True)]
            ),
        ),
    ]
    if len(saved.ladder):
        rows = [
            (
                str(row["policy"]),
                [number(row[key]) for key in ("replicas", "gpus", "cost_per_hour")],
            )
            for _, row in saved.ladder.iterrows()
        ]
        sections.append(Section("The ladder", html_table([("policy", LADDER_HEADS), *rows])))
    sections.append(provenance(about["config"], about["versions"]))
    facts = f"{about['num_runs']:,} runs, {about['num_requests']:,} requests"
    title = f"{about['request_rate']:.3g} requests/s within {about['slo_text']}"
    return Page(title, facts, about["verdict"], tuple(sections))


def _winner(about: dict[str, object]) -> str:
    winner = about["winner"]
    assert isinstance(winner, dict)
    command = f"<pre>{escape(winner['command'])}</pre>" if winner["command"] else ""
    notes = about["notes"]
    assert isinstance(notes, list)
    return command + bullets(map(str, notes))


def hover_front(table: pd.DataFrame, latency: str) -> str:
    """Return the front as SVG: a point says what it is when the pointer rests on it.

    Examples
    --------
    >>> row = {"servers": "2 × h100", "cost_per_hour": 5.0, "latency_s": 0.4, "slo_used": 0.2}
    >>> row |= {"outcome": "meets", "on_front": True, "setup": "", "router": "", "command": "vllm serve"}
    >>> svg = hover_front(pd.DataFrame([row]), "TTFT p99")
    >>> "<title>2 × h100: 5.00 per hour, TTFT p99 0.4 s, 20 % of the SLO used" in svg
    True
    """
    known = table[table["latency_s"] < float("inf")].dropna(subset=["latency_s"])
    if not len(known):
        return "<p>No latency was measured.</p>"
    (width, height), right = _SIZE, known["cost_per_hour"].max()
    top = known["latency_s"].max()
    points = [
        f'<circle cx="{_MARGIN + (width - 2 * _MARGIN) * row["cost_per_hour"] / right:.0f}" '
        f'cy="{height - _MARGIN - (height - 2 * _MARGIN) * row["latency_s"] / top:.0f}" '
        f'r="{9 if row["on_front"] else 5}" fill="{_COLORS[row["outcome"]]}">'
        f"<title>{escape(_words(row, latency))}</title></circle>"
        for _, row in known.iterrows()
    ]
    axes = (
        f'<path d="M{_MARGIN} {_MARGIN}V{height - _MARGIN}H{width - _MARGIN}" fill="none" '
        f'stroke="currentColor"/>'
        f'<text x="{width - _MARGIN}" y="{height - 20}" text-anchor="end" fill="currentColor">cost '
        f"per hour, to {right:,.2f}</text>"
        f'<text x="{_MARGIN}" y="{_MARGIN - 15}" fill="currentColor">{escape(latency)}, to '
        f"{top:.3g} s</text>"
    )
    words = (
        "<p>Green meets the SLO, grey misses it, orange is undecided; large points are the front: "
        "nothing costs less and is as fast. Rest on a point to read what it is.</p>"
    )
    return (
        f'{words}<svg viewBox="0 0 {width} {height}" role="img" aria-label="Cost against '
        f'{escape(latency)}" style="max-width:100%">{axes}{"".join(points)}</svg>'
    )


def _words(row: pd.Series[Any], latency: str) -> str:
    cost, seconds, used = (
        float(str(row[key])) for key in ("cost_per_hour", "latency_s", "slo_used")
    )
    router = row["router"]
    behind = f", behind {router}" if isinstance(router, str) and router else ""
    return (
        f"{row['servers']}: {cost:,.2f} per hour, {latency} {seconds:.3g} s, {100 * used:.0f} % of "
        f"the SLO used ({row['outcome']}); {row['setup']}{behind}; {row['command']}"
    )
