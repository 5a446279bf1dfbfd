"""A recommendation as a page, from the tables in its folder."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.config.subject import subject
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table
from busdoor.metrics.slo import SLO
from busdoor.recommend.figures import plot_front
from busdoor.recommend.folder import load
from busdoor.recommend.table_text import HEADS, LADDER_HEADS, ladder_rows, place_rows

_SIZE_IN = 3.6, 6.0  # height, width


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
        Section("Cost against latency", _front(table, latency)),
        Section(
            "Everything raced",
            html_table(
                [("servers", (*HEADS, "setup")), *place_rows(table, len(table), setups=True)]
            ),
        ),
    ]
    if len(saved.ladder):
        winner = pd.Series(about["winner"]) if about.get("winner") else None
        rows = ladder_rows(saved.ladder.set_index("policy"), winner)
        sections.append(Section("The ladder", html_table([("policy", LADDER_HEADS), *rows])))
    sections.append(provenance(about["config"], about["versions"]))
    facts = f"{about['num_runs']:,} runs, {about['num_requests']:,} requests"
    wanted = f"{about['request_rate']:.3g} requests/s within {about['slo_text']}"
    if about.get("winner"):
        wanted = f"{about['winner']['servers']} for {wanted}"
    title = f"{wanted}: {subject(about['config'], without=('gpu.name',))}"
    return Page(title, facts, about["verdict"], tuple(sections))


def _winner(about: dict[str, object]) -> str:
    winner = about["winner"]
    assert isinstance(winner, dict)
    command = (
        f'<pre style="white-space: pre-wrap">{escape(winner["command"])}</pre>'
        if winner["command"]
        else ""
    )
    notes = about["notes"]
    assert isinstance(notes, list)
    return command + bullets(map(str, notes))


def _front(table: pd.DataFrame, latency: str) -> str:
    known = table[table["latency_s"] < float("inf")].dropna(subset=["latency_s"])
    if not len(known):
        return "<p>No latency was measured.</p>"
    drawn = figure(
        lambda ax: plot_front(known, latency, ax=ax),
        "Nothing on the front's line costs less and is as fast. A point shows what it is under the "
        "pointer.",
        *_SIZE_IN,
        values=[
            (row["cost_per_hour"], row["latency_s"], _words(row, latency))
            for _, row in known.iterrows()
        ],
    )
    return f'<div class="plots wide">{drawn}</div>'


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
