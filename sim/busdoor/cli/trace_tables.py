"""What `busdoor trace` shows in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from busdoor_workloads import Trace
    from busdoor_workloads.download import Progress

_LENGTHS = ("mean", "p50", "p90", "p99", "max", "cv")


def print_description(trace: Trace, summary: pd.Series[float]) -> None:
    """Print a trace's statistics as three small tables."""
    console = Console()
    console.print(f"[bold]{escape(trace.name)}[/]: {len(trace):,} requests over {_number(summary['span_s'])} s")
    for table in (_lengths(summary), _arrivals(summary), _efficiency(summary)):
        console.print()
        console.print(table)
    if notes := _notes(trace):
        console.print(f"\nRead as: {escape(notes)}", style="dim")


def _lengths(summary: pd.Series[float]) -> Table:
    table = _table("Tokens", *_LENGTHS)
    for column, title in (("input_tokens", "input"), ("output_tokens", "output")):
        table.add_row(title, *(_number(summary[f"{column}_{name}"]) for name in _LENGTHS))
    return table


def _arrivals(summary: pd.Series[float]) -> Table:
    shown = {
        "requests per second": "request_rate",
        "CV of gaps (Poisson: 1)": "interarrival_cv",
        "variance / mean of arrivals in 1 s (Poisson: 1)": "idc_1s",
        "in 10 s": "idc_10s",
        "in 60 s": "idc_60s",
        "correlation of input and output": "correlation",
        "prompt blocks an infinite prefix cache hits": "prefix_block_hit_share",
        "prompt tokens it hits": "prefix_token_hit_share",
    }
    table = _table("Arrivals and reuse", "")
    for title, key in shown.items():
        if summary[key] == summary[key]:  # NaN: there is nothing to measure
            table.add_row(title, f"{summary[key]:.1%}" if key.endswith("share") else _number(summary[key]))
    return table


def _efficiency(summary: pd.Series[float]) -> Table:
    sizes = [key.removeprefix("decode_efficiency_b") for key in map(str, summary.index) if key.startswith("decode_")]
    table = _table("Useful share of a static batch of", *sizes)
    for part, title in (("decode", "decode slot-steps: E[N] / E[max of b]"), ("prefill", "prefill, padded prompts")):
        table.add_row(escape(title), *(f"{summary[f'{part}_efficiency_b{size}']:.0%}" for size in sizes))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: float) -> str:
    if value == float("inf"):
        return "all at once"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def _notes(trace: Trace) -> str:
    notes = dict(trace.metadata)
    shown = {key: value for key, value in notes.items() if key in ("format", "arrivals", "jitter") or "dropped" in key}
    return ", ".join(f"{key.replace('_', ' ')} {_note(value)}" for key, value in shown.items() if value)


def _note(value: object) -> str:
    return " ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)


def print_public_traces() -> None:
    """List the public traces that `busdoor trace fetch` knows."""
    from busdoor_workloads.fetch import PUBLIC_TRACES

    table = Table("Name", "Requests", "Licence", "Here", "Source", show_edge=False, pad_edge=False)
    for name, trace in PUBLIC_TRACES.items():
        number = f"{trace.num_requests:,}" if trace.num_requests else ""
        table.add_row(name, number, trace.licence, _here(name), trace.attribution)
    Console().print(table)


def _here(name: str) -> str:
    from busdoor_workloads.fetch import cached

    try:
        return "yes" if cached(name) else ""
    except ValueError:
        return "damaged"


@contextmanager
def download_bar(name: str) -> Iterator[Progress]:
    """Show a progress bar on standard error; yields what `fetch` reports to."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda at_hand, in_all: bar.update(task, completed=at_hand, total=in_all)
