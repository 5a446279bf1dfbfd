"""Progress on stderr of work over a second: a terminal bar, or a line each ten seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from busdoor.cli.output import note
from busdoor.core.progress import PATIENCE_S

if TYPE_CHECKING:
    from busdoor.core.progress import Report
    from busdoor_workloads.download import Progress as Downloaded

# between two lines in a file or pipe: a log stays short, and no minute is silent
LINE_EVERY_S = 10.0
REFRESHES_PER_S = 4  # of the bar: replays beneath it are timed


@contextmanager
def progress_bar(what: str = "") -> Iterator[Report]:
    """Show on stderr which share of the work is done, and since when it runs.

    A terminal gets a bar after a second; a file or pipe gets a line every ten seconds, also while
    nothing is reported. Yields what takes the share that is done, from 0 to 1, and what is being
    done.
    """
    shown = _Bar(what) if sys.stderr.isatty() else _Lines(what)
    try:
        with _every(shown.wait_s, shown.tick):
            yield shown.report
    finally:
        shown.stop()


@contextmanager
def download_bar(name: str) -> Iterator[Downloaded]:
    """Show on stderr how much of a file has been downloaded; yields what `fetch` reports to."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda at_hand, in_all: bar.update(task, completed=at_hand, total=in_all)


class _Bar:
    """A bar of rich's, which a terminal draws over and over in one line."""

    wait_s = PATIENCE_S

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        console = Console(stderr=True)
        self.bar = Progress(
            *columns, console=console, transient=True, refresh_per_second=REFRESHES_PER_S
        )
        self.task = self.bar.add_task(what, total=1.0)
        self.stop = self.bar.stop

    def report(self, share: float, what: str) -> None:
        """Record which share is done; rich draws it."""
        self.bar.update(self.task, completed=share, description=what)

    def tick(self) -> None:
        """Appear."""
        self.bar.start()


class _Lines:
    """Lines on stderr."""

    wait_s = LINE_EVERY_S

    def __init__(self, what: str) -> None:
        self.share, self.what, self.began_s = 0.0, what, monotonic()

    def report(self, share: float, what: str) -> None:
        """Record which share is done."""
        self.share, self.what = share, what

    def tick(self) -> None:
        """Print a line."""
        line = progress_line(self.share, self.what, monotonic() - self.began_s)
        note(line)

    def stop(self) -> None:
        """Leave the lines as they are."""


def progress_line(share: float, what: str, elapsed_s: float) -> str:
    """Return which share of the work is done, if that was reported.

    >>> progress_line(0.25, "vllm: 500 of 2,000 requests", 83.2)
    'busdoor: 25 % done after 1:23; vllm: 500 of 2,000 requests'
    >>> progress_line(0.0, "drawing requests", 10.0)
    'busdoor: running for 0:10; drawing requests'
    """
    elapsed = "{}:{:02}".format(*divmod(int(elapsed_s), 60))
    how_far = f"{100 * share:.0f} % done after {elapsed}" if share else f"running for {elapsed}"
    return f"busdoor: {how_far}" + (f"; {what}" if what else "")


@contextmanager
def _every(wait_s: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every so many seconds from its own thread, so that silent work reports."""
    over = Event()

    def wait() -> None:
        while not over.wait(wait_s):
            tick()

    thread = Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
