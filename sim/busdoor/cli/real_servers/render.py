"""What is printed of observations, and of the twin of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from busdoor.cli.render import grid, print_lines

if TYPE_CHECKING:
    from busdoor.observe.observation import Observation
    from busdoor.observe.twin.compare import ServerTwin
    from busdoor.results.result import Result


def print_observation(seen: Observation, engine: Result | None) -> None:
    """Print what was observed, what the engine recorded, and what speaks against trusting it."""
    from busdoor.observe.table_text import client_rows, engine_rows
    from busdoor.observe.twin.text import what_was_observed
    from busdoor.results.table_text import refusals, summary_rows

    console, result = Console(), seen.result
    console.print(escape(what_was_observed(result.meta)), highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    known = [row for row in summary_rows(result.summary) if not row[1].startswith("–")]
    for title, value in [
        *known,
        *client_rows(seen),
        *(engine_rows(result, engine) if engine else []),
    ]:
        table.add_row(title, value)
    console.print(table)
    for reason, count in refusals(result.requests).items():
        console.print(f"Refused: {count:,}; {escape(reason)}", style="yellow", highlight=False)
    print_lines(console, [f"Doubt: {doubt}" for doubt in seen.doubts], style="yellow")


def print_predictions(made: ServerTwin) -> None:
    """Print predictions beside what was measured afterwards, and where the TTFT comes from."""
    from busdoor.observe.twin.text import (
        PREDICTION_COLUMNS,
        gain_lines,
        prediction_cells,
        split_lines,
    )

    console = Console()
    console.print(
        "Predictions, each written before its run, against what was measured:", highlight=False
    )
    console.print(
        grid(PREDICTION_COLUMNS, prediction_cells(made.table), first="run, load: quantity")
    )
    print_lines(console, [*split_lines(made.front_end_s, made.splits), *gain_lines(made.gains)])
