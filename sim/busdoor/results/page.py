"""A single run as a page."""

from __future__ import annotations

from busdoor.core.format import duration, number, percent
from busdoor.html.page import Page, Section
from busdoor.html.sections import (
    course_plots,
    latency_plots,
    provenance,
    timelines,
    waste_plots,
    words_used,
)
from busdoor.html.tables import html_table
from busdoor.results.result import Result
from busdoor.results.table_text import refusals, summary_rows

_PLAY = "Press play: each row is a slot, and fills as its answer is written."


def result_page(result: Result) -> Page:
    """Return a simulated or measured run as a page."""
    policy, meta = str(result.meta["policy"]), result.meta
    runs = {policy: result}
    sections = (
        timelines("Requests in their slots", _PLAY, runs),
        _numbers(result),
        latency_plots(runs),
        waste_plots(runs),
        course_plots(runs),
        words_used(),
        provenance(meta.get("config", meta.get("policy_config", {})), meta.get("versions", {})),
    )
    where = f", {meta['gpu']} with {meta['model']}" if "gpu" in meta else ""
    seed = f", seed {meta['seed']}" if "seed" in meta else ""
    title = f"{policy} on {meta.get('trace', 'a trace')}{where}{seed}"
    return Page(title, _facts(result), _verdict(result), sections)


def _facts(result: Result) -> str:
    meta = result.meta
    predicted = f"; {meta['prediction']}" if "prediction" in meta else ""
    return f"{len(result.requests):,} requests{predicted}"


def _verdict(result: Result) -> str:
    summary = result.summary
    sentences = [
        f"It answers {summary['completed']:,} of {len(result.requests):,} requests at "
        f"{number(summary['output_throughput'])} output tokens/s, half of them within "
        f"{duration(summary['median_e2el_ms'])}.",
        f"Of the slot time held, {percent(summary['bubble_share'])} is idle.",
    ]
    if summary["saturated"]:
        sentences.append("The server cannot keep up: its queue grows as long as requests come.")
    return " ".join(sentences)


def _numbers(result: Result) -> Section:
    rows = [(title, [value.replace("  ", " · ")]) for title, value in summary_rows(result.summary)]
    rows += [
        (f"refused: {reason}", [f"{count:,}"])
        for reason, count in refusals(result.requests).items()
    ]
    return Section("The numbers", html_table(rows))
