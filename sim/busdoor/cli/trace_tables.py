"""What `busdoor trace` shows in the terminal: tables of plain strings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from busdoor_workloads import Trace
from busdoor_workloads.fetch import PUBLIC_TRACES, cached

if TYPE_CHECKING:
    import pandas as pd

PUBLIC_HEADS = ("Name", "Requests", "Licence", "Here", "Source")
_LENGTHS = ("mean", "p50", "p90", "p99", "max", "cv")
_ARRIVALS = {
    "requests per second": "request_rate",
    "CV of gaps (Poisson: 1)": "interarrival_cv",
    "variance / mean of arrivals in 1 s (Poisson: 1)": "idc_1s",
    "in 10 s": "idc_10s",
    "in 60 s": "idc_60s",
    "correlation of input and output": "correlation",
    "prompt blocks an infinite prefix cache hits": "prefix_block_hit_share",
    "prompt tokens it hits": "prefix_token_hit_share",
}
_EFFICIENCY = {
    "decode": "decode slot-iterations: E[N] / E[max of b]",
    "prefill": "prefill, padded prompts",
}


class TextTable(NamedTuple):
    """A small table: what its rows are of, its columns, and its rows of a title and cells."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def heading(trace: Trace, summary: pd.Series[float]) -> tuple[str, str]:
    """Return the trace's name, and how many requests it has over which time."""
    return trace.name, f"{len(trace):,} requests over {_number(summary['span_s'])} s"


def description(summary: pd.Series[float]) -> Iterator[TextTable]:
    """Return a trace's statistics as three tables: lengths, arrivals, static batches' use."""
    lengths = {"input": "input_tokens", "output": "output_tokens"}
    rows = [
        (title, [_number(summary[f"{key}_{name}"]) for name in _LENGTHS])
        for title, key in lengths.items()
    ]
    yield TextTable("Tokens", list(_LENGTHS), rows)
    # else NaN
    measured = {title: key for title, key in _ARRIVALS.items() if summary[key] == summary[key]}
    yield TextTable(
        "Arrivals and reuse",
        [""],
        [(title, [_shown(key, summary)]) for title, key in measured.items()],
    )
    sizes = [
        key.removeprefix("decode_efficiency_b")
        for key in map(str, summary.index)
        if key.startswith("decode_")
    ]
    rows = [
        (title, [f"{summary[f'{part}_efficiency_b{size}']:.0%}" for size in sizes])
        for part, title in _EFFICIENCY.items()
    ]
    yield TextTable("Useful share of a static batch of", sizes, rows)


def _shown(key: str, summary: pd.Series[float]) -> str:
    return f"{summary[key]:.1%}" if key.endswith("share") else _number(summary[key])


def _number(value: float) -> str:
    if value == float("inf"):
        return "all at once"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def reading_notes(trace: Trace) -> str:
    """Return how the trace was read: format, arrivals, jitter, drops; empty if drawn."""
    notes = dict(trace.metadata)
    shown = {
        key: value
        for key, value in notes.items()
        if key in ("format", "arrivals", "jitter") or "dropped" in key
    }
    return ", ".join(
        f"{key.replace('_', ' ')} {_note(value)}" for key, value in shown.items() if value
    )


def _note(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def public_rows() -> list[list[str]]:
    """Return a row per public trace that `busdoor trace fetch` knows."""
    return [
        [
            name,
            f"{trace.num_requests:,}" if trace.num_requests else "",
            trace.licence,
            _here(name),
            trace.attribution,
        ]
        for name, trace in PUBLIC_TRACES.items()
    ]


def _here(name: str) -> str:
    try:
        return "yes" if cached(name) else ""
    except ValueError:
        return "damaged"
