"""A progress bar on stderr, for whatever takes longer than a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busdoor.experiment import Report

PATIENCE_S = 1.0  # nobody misses a bar before that


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Show how far the work has come, if stderr is a terminal and it takes a while.

    Yields
    ------
    callable
        To be told the share that is done, from 0 to 1, and what is being done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=1.0)
    began_s = monotonic()

    def report(share: float, what: str) -> None:
        bar.update(task, completed=share, description=what)
        if monotonic() - began_s > PATIENCE_S and not bar.live.is_started:
            bar.start()

    try:
        yield report
    finally:
        bar.stop()
