"""Tables and sentences in the terminal: what a study is, drawn with rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from busdoor.calibration.table_text import _subject, _terms, short_seconds
from busdoor.capacity.table_text import plan_rows, rate_rows, remarks, spent
from busdoor.cluster.table_text import SHOWN_ROWS, TITLES, _cells, _name
from busdoor.comparison.table_text import LADDER, LADDER_HEADS, comparison_rows, heading, ladder_rows
from busdoor.core.format import as_percent, as_share, number
from busdoor.results.table_text import refusals, slo_rows, summary_rows, what_ran
from busdoor.validation.table_text import (
    BRIEFLY,
    Rows,
    bar_rows,
    blame_lines,
    brief_rows,
    gain_lines,
    knee_lines,
    limit_lines,
)

if TYPE_CHECKING:
    import pandas as pd

    from busdoor.calibration import Calibration
    from busdoor.capacity import Capacity
    from busdoor.comparison.comparison import Comparison
    from busdoor.metrics.slo import SLO
    from busdoor.results.result import Result
    from busdoor.validation.validation import Validation


def _grid(columns: Sequence[str], rows: Rows, first: str = "") -> Table:
    """Return a table of a title and right-aligned cells per row."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, no_wrap=True)  # 80 columns hold four policies and static's best batch size
    for column in columns:
        table.add_column(escape(column.replace(" (", "\n(")), justify="right")
    for title, cells in rows:
        table.add_row(escape(title), *map(escape, cells))
    return table


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison: a column per policy, the ladder, then the verdict."""
    console = Console()
    console.print(escape(heading(comparison)) + "\n", highlight=False)
    console.print(_grid(comparison.policies, comparison_rows(comparison)))
    console.print()
    if len(comparison.ladder):
        print_ladder(comparison, console)
    console.print(escape(comparison.verdict), soft_wrap=False, highlight=False)


def print_ladder(comparison: Comparison, console: Console) -> None:
    """Print what each step from static batching to vllm is worth."""
    console.print(LADDER)
    console.print(_grid(LADDER_HEADS, ladder_rows(comparison)))
    console.print()


def print_summary(result: Result, slo: SLO | None = None) -> None:
    """Print what ran, what it came to, and whether it met the SLO."""
    summary = result.summary
    console = Console()
    console.print(escape(what_ran(result.meta)), highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, value in [*summary_rows(summary), *slo_rows(result, slo)]:
        table.add_row(title, value)
    console.print(table)
    for reason, count in refusals(result.requests).items():
        console.print(f"Refused: {count:,}; {escape(reason)}", style="yellow", highlight=False)
    if summary["saturated"]:
        console.print("The server cannot keep up: its queue grows as long as requests come.", style="yellow")


def print_calibration(calibration: Calibration) -> None:
    """Print the terms with their intervals, the errors, and what is not known."""
    console, about = Console(), calibration.about
    console.print(f"[bold]{escape(str(about.get('name')))}[/]: {escape(_subject(about))}", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("term", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "term" else "right")
    for term, value, interval in _terms(calibration):
        table.add_row(term, short_seconds(value), " – ".join(map(short_seconds, interval)))
    console.print(table)
    for title, value in calibration.errors.items():
        shown = as_percent(value) if "total" in title or "mean_t" in title else as_share(value)
        console.print(f"{title.replace('_', ' ')}: {shown}", highlight=False)
    for key, what in (("repeatability", "noise between like iterations"), ("drift", "drift between parts of the log")):
        if key in about:
            console.print(f"{what}, which no model predicts: {as_share(about[key])}", highlight=False)
    if "transferred_from" in about:
        console.print(f"Transferred from {about['transferred_from']}: nothing was measured here.", style="yellow")
    for key, what in (("not_identified", "These rates do not tell from 0"), ("hidden", "Requests never show"),
                      ("doubts", "Written by --force although")):  # fmt: skip
        if about.get(key):
            console.print(f"{what}: {', '.join(about[key])}.", style="yellow", highlight=False)


def print_validation(validation: Validation) -> None:
    """Print the main errors run by run, then knee, gains, bars, what is to blame, and what is not known."""
    console = Console()
    console.print("Errors, simulated against measured, in per cent:")
    console.print(_grid([heading for heading, _ in BRIEFLY], brief_rows(validation.runs)))
    for line in (*knee_lines(validation), *gain_lines(validation)):
        console.print(line, highlight=False, markup=False)
    regimes, rows = bar_rows(validation)
    console.print("\nThe largest error of each regime's runs, in per cent, ✓ within its bar, ✗ beyond:")
    console.print(_grid(regimes, [(row, [cell.replace(" %", "") for cell in cells]) for row, cells in rows]))
    console.print(f"\n{validation.verdict}", highlight=False, markup=False)
    for line in blame_lines(validation):
        console.print(line, highlight=False, markup=False)
    for line in limit_lines(validation):
        console.print(line, style="yellow", highlight=False, markup=False)


def print_capacity(capacity: Capacity, request_rate: float | None) -> None:
    """Print a line a policy, the plan for a rate, the verdict, and how it was found out."""
    console = Console()
    name = capacity.config.workload.name or capacity.config.workload.path or "azure-conv"
    console.print(f"[bold]{escape(str(name))}[/] on {escape(capacity.config.where)}: {capacity.slo}\n")
    console.print(_grid(*rate_rows(capacity)))
    if request_rate is not None:
        console.print(f"\nFor {request_rate:.4g} requests/s:", highlight=False)
        console.print(_grid(*plan_rows(capacity, request_rate)))
    for policy, reason in remarks(capacity, request_rate):
        console.print(f"{policy}: {reason}.", style="yellow", highlight=False, markup=False)
    console.print()
    console.print(escape(capacity.verdict(request_rate)), highlight=False)
    console.print(escape(spent(capacity)), highlight=False, style="dim")


def print_day(capacity: Capacity, hourly_rps: Sequence[float]) -> None:
    """Print servers by hour, and what a fleet that follows the day saves against one for its peak."""
    day = capacity.plan_day(hourly_rps)
    rows = [
        (str(hour), [f"{row['request_rate']:.3g}", *(number(row[name]) for name in capacity.table.index)])
        for hour, row in day.iterrows()
    ]
    table = _grid(["requests/s", *capacity.table.index], rows, first="hour")
    servers = day[list(capacity.table.index)]
    table.add_section()
    table.add_row("server-hours", "", *(number(total) for total in servers.sum(skipna=False)))
    fixed = capacity.fixed_fleet(hourly_rps) * len(day)
    table.add_row("at the peak's number", "", *(number(total) for total in fixed))
    console = Console()
    console.print("\nServers by hour:")
    console.print(table)


def print_replicas(replicas: pd.DataFrame) -> None:
    """Print a line a server, and who had most to do.

    Parameters
    ----------
    replicas : DataFrame
        Of `busdoor.cluster.per_replica.replica_table`.
    """
    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("replica", no_wrap=True)
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in replicas.head(SHOWN_ROWS).iterrows():
        table.add_row(escape(_name(index, row)), *_cells(row))
    console.print()
    console.print(table)
    if len(replicas) > SHOWN_ROWS:
        console.print(f"... and {len(replicas) - SHOWN_ROWS:,} more in replicas.csv")
    busiest = replicas["imbalance"].idxmax()
    console.print(
        f"Replica {busiest} had most to do for its weight: {replicas['imbalance'].max():.2f} times the mean.",
        highlight=False,
    )
