"""A long run as a page: its numbers, and its hours as pictures."""

from __future__ import annotations

import numpy as np

from busdoor.core.format import duration, number, percent
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import html_table
from busdoor.plots.hours import hour_panels
from busdoor.results.hourly import HourlyResult, when
from busdoor.results.table_text import summary_rows

_SIZE_IN = (2.2, 7.0)  # of a panel: height, width


def hourly_page(result: HourlyResult) -> Page:
    """Return a run by the hour as a page."""
    meta = result.meta
    where = f", on {meta['num_replicas']} × {meta['gpu']} with {meta['model']}"
    facts = f"{meta['num_requests']:,} requests{where}; {meta['prediction']}"
    panels = hour_panels(result.hours, meta)
    plots = [figure(draw, caption, *_SIZE_IN) for caption, draw in panels.items()]
    rows = [*summary_rows(result.summary), *result.slo_rows()]
    table = html_table([(title, [value.replace("  ", " · ")]) for title, value in rows])
    sections = (
        Section("By the hour", "".join(plots)),
        Section("The numbers", f"{table}<p>{result.exactness}</p>"),
        provenance(meta["config"], meta["versions"]),
    )
    title = f"{meta['policy']} on {meta.get('trace', 'a trace')}, by the hour"
    return Page(title, facts, _verdict(result), sections)


def _verdict(result: HourlyResult) -> str:
    summary, hours = result.summary, result.hours
    sentences = [
        f"It answers {summary['completed']:,} requests in {duration(1e3 * summary['duration'])} at "
        f"{number(summary['request_throughput'])} requests/s."
    ]
    if not result.meta["complete"]:
        sentences.append(f"It was stopped at {when(result.meta['stopped_s'])} of the trace.")
    if hours["slo_share"].notna().any():
        worst = int(np.nanargmin(hours["slo_share"]))
        sentences.append(
            f"{percent(summary['slo_share'])} of the requests met the SLO; in the worst hour, "
            f"{when(3600 * worst)}, {percent(hours['slo_share'][worst])}."
        )
    return " ".join(sentences)
