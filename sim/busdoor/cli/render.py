"""Tables and sentences in the terminal: the rows and lines of each study, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from busdoor.calibration import Calibration
    from busdoor.capacity import Capacity
    from busdoor.capacity.sizing import Day
    from busdoor.comparison.comparison import Comparison
    from busdoor.metrics.slo import SLO
    from busdoor.recommend import Recommendation
    from busdoor.results.result import Result
    from busdoor.sweep import Sweep
    from busdoor.validation.validation import Validation
    from busdoor_workloads import Trace

_NAME = 32  # columns of a first cell that others make room for
PIPED_WIDTH = 120  # columns of a file or pipe, which does not fold lines


def grid(
    columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], first: str = ""
) -> Table:
    """Return a table of a title and right-aligned cells per row."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    # 80 columns hold four policies and static's best batch size
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(escape(column.replace(" (", "\n(")), justify="right")
    for title, cells in rows:
        table.add_row(escape(title), *map(escape, cells))
    return table


def ruled(heads: Iterable[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> Table:
    """Return a table with a rule below its heads, as `busdoor trace` shows them."""
    first, *others = map(escape, heads)
    rows = list(rows)
    table = Table(show_edge=False, pad_edge=False)
    # a name that is cut off is of no use
    width = min(_NAME, max(len(cells[0]) for cells in rows))
    table.add_column(first, min_width=width, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right" if right else "left")
    for cells in rows:
        table.add_row(*map(escape, cells))
    return table


def print_lines(console: Console, lines: Iterable[str], style: str | None = None) -> None:
    """Print lines as they are, without markup."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False)


def wide_console() -> Console:
    """Return a console for tables that may be wider than a pipe's 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison: a column per policy, the ladder, then the verdict."""
    from busdoor.comparison.bounds import BESIDE, BESIDE_HEADS, beside, violations
    from busdoor.comparison.table_text import (
        LADDER,
        LADDER_HEADS,
        chance_lines,
        comparison_rows,
        heading,
        ladder_rows,
    )

    console = Console()
    console.print(escape(heading(comparison)) + "\n", highlight=False)
    console.print(grid(comparison.policies, comparison_rows(comparison)))
    console.print()
    if len(comparison.ladder):
        console.print(LADDER)
        console.print(grid(LADDER_HEADS, ladder_rows(comparison)))
        console.print()
    if len(comparison.bounds):
        console.print(BESIDE)
        console.print(grid(BESIDE_HEADS, beside(comparison.bounds, comparison.policies)))
        console.print()
    console.print(escape(comparison.verdict), soft_wrap=False, highlight=False)
    print_lines(console, chance_lines(comparison))
    print_lines(console, violations(comparison.bounds), style="yellow")


def print_summary(result: Result, slo: SLO | None = None) -> None:
    """Print what ran, its metrics, and whether it met the SLO."""
    from busdoor.results.table_text import refusals, slo_rows, summary_rows, what_ran

    console, summary = Console(), result.summary
    console.print(escape(what_ran(result.meta)), highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, value in [*summary_rows(summary), *slo_rows(result, slo)]:
        table.add_row(title, value)
    console.print(table)
    for reason, count in refusals(result.requests).items():
        console.print(f"Refused: {count:,}; {escape(reason)}", style="yellow", highlight=False)
    if summary["saturated"]:
        console.print(
            "The server cannot keep up: its queue grows as long as requests come.", style="yellow"
        )


def print_calibration(calibration: Calibration) -> None:
    """Print the terms with their intervals, the errors, and what is not known."""
    from busdoor.calibration.table_text import doubt_lines, error_lines, subject, term_rows

    console, name = Console(), str(calibration.about.get("name"))
    console.print(f"[bold]{escape(name)}[/]: {escape(subject(calibration))}", highlight=False)
    console.print(grid(("value", "95 % interval"), term_rows(calibration), first="term"))
    print_lines(console, error_lines(calibration))
    print_lines(console, doubt_lines(calibration), style="yellow")


def print_validation(validation: Validation) -> None:
    """Print the main errors by run, then knee, gains, thresholds, causes, and unknowns."""
    from busdoor.validation import table_text as text
    from busdoor.validation.limits_text import limit_lines

    console = Console()
    console.print("Errors, simulated against measured, in per cent:")
    columns, rows = [heading for heading, _ in text.BRIEFLY], text.brief_rows(validation.runs)
    console.print(grid(columns, rows, first=text.BRIEF_HEAD))
    print_lines(console, (*text.knee_lines(validation), *text.gain_lines(validation)))
    regimes, rows = text.threshold_rows(validation)
    console.print(
        "\nThe largest error of each regime's runs, in per cent, ✓ within its bar, ✗ beyond; in "
        "brackets where no bar binds:"
    )
    console.print(
        grid(regimes, [(row, [cell.replace(" %", "") for cell in cells]) for row, cells in rows])
    )
    print_lines(console, (f"\n{validation.verdict}", *text.blame_lines(validation)))
    print_lines(console, limit_lines(validation), style="yellow")


def print_capacity(capacity: Capacity, request_rate: float | None) -> None:
    """Print a line per policy, the plan for a rate, the verdict, and the cost of the search."""
    from busdoor.capacity.table_text import plan_rows, rate_rows, remarks, spent

    console = Console()
    name = capacity.config.workload.name or capacity.config.workload.path or "azure-conv"
    console.print(
        f"[bold]{escape(str(name))}[/] on {escape(capacity.config.where)}: {capacity.slo}"
    )
    console.print(f"{escape(capacity.config.prediction)}\n", highlight=False)
    console.print(grid(*rate_rows(capacity)))
    if request_rate is not None:
        console.print(f"\nFor {request_rate:.4g} requests/s:", highlight=False)
        console.print(grid(*plan_rows(capacity, request_rate)))
    remarked = (f"{policy}: {reason}." for policy, reason in remarks(capacity, request_rate))
    print_lines(console, remarked, style="yellow")
    console.print()
    console.print(escape(capacity.verdict(request_rate)), highlight=False)
    print_lines(console, (f"{line}." for line in capacity.uncertainty.get("lines", ())))
    console.print(escape(spent(capacity)), highlight=False, style="dim")


def print_recommendation(found: Recommendation) -> None:
    """Print what was raced, the ladder, what to run, and the verdict."""
    from busdoor.recommend import table_text as text

    console = Console()
    print_lines(console, [found.verdict(), ""])
    console.print(grid(text.HEADS, text.place_rows(found.table), first="servers"))
    print_lines(console, ["", f"'latency' is {found.slo.targets[0].name}."])
    if len(found.ladder):
        print_lines(console, ["", "On these GPUs, by policy:"])
        console.print(grid(text.LADDER_HEADS, text.ladder_rows(found.ladder, found.winner_row)))
    if found.command:
        print_lines(console, ["", f"Each server: {found.command}"])
    print_lines(console, text.notes(found), style="yellow")
    spent = f"{found.num_runs:,} runs, {found.num_requests:,} requests of seed {found.config.seed}."
    print_lines(console, [spent], style="dim")


def print_day(capacity: Capacity, day: Day) -> None:
    """Print servers by hour, and what a fleet that follows the day saves against its peak."""
    from busdoor.capacity.table_text import bill_rows
    from busdoor.core.format import number

    hours = capacity.plan_day(day.hourly_rps, day.floor)
    rows = [
        (
            str(hour),
            [f"{row['request_rate']:.3g}", *(number(row[name]) for name in capacity.table.index)],
        )
        for hour, row in hours.iterrows()
    ]
    table = grid(["requests/s", *capacity.table.index], rows, first="hour")
    table.add_section()
    for title, cells in bill_rows(capacity.bill_day(day)):
        table.add_row(title, "", *cells)
    console = Console()
    console.print("\nServers by hour:")
    console.print(table)


def print_replicas(replicas: pd.DataFrame) -> None:
    """Print a line per server, and which had the largest load."""
    from busdoor.cluster.table_text import TITLES, replica_lines, replica_rows

    console = Console()
    console.print()
    console.print(grid(TITLES, replica_rows(replicas), first="replica"))
    print_lines(console, replica_lines(replicas))


def print_sweep(sweep: Sweep) -> None:
    """Print a line per point: what varied, main metrics; then what failed or is missing."""
    from busdoor.sweep.table_text import METRICS, closing_lines, point_rows, varied_keys

    console = wide_console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in varied_keys(sweep):
        table.add_column(escape(key.replace(".", "\n").replace("_", "\n")), no_wrap=True)
    for title in METRICS:
        table.add_column(title, justify="right", no_wrap=True)
    for cells in point_rows(sweep):
        table.add_row(*map(escape, cells))
    console.print(table)
    print("\n".join(closing_lines(sweep)))


def print_description(trace: Trace, summary: pd.Series[float]) -> None:
    """Print a trace's statistics as three small tables."""
    from busdoor.cli.trace_tables import description, heading, reading_notes

    console = Console()
    name, size = heading(trace, summary)
    console.print(f"[bold]{escape(name)}[/]: {size}")
    for title, columns, rows in description(summary):
        console.print()
        console.print(ruled([title, *columns], ([row, *cells] for row, cells in rows), right=True))
    if notes := reading_notes(trace):
        console.print(f"\nRead as: {escape(notes)}", style="dim")


def print_public_traces() -> None:
    """Print a line per public trace that `busdoor trace fetch` knows."""
    from busdoor.cli.trace_tables import PUBLIC_HEADS, public_rows

    Console().print(ruled(PUBLIC_HEADS, public_rows()))
