"""What a notebook shows: progress of long work, and results as tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib import import_module
from time import monotonic
from typing import Any

from busdoor.core.progress import PATIENCE_S, Report
from busdoor.html.tables import html_table

Rows = Iterable[tuple[str, Sequence[str]]]
REFRESH_S = 0.25  # between two drawings of it


def notebook_html(title: str, *tables: tuple[Sequence[str], Rows], answer: str = "") -> str:
    """Return a heading, tables (their columns and rows) and the answer in words.

    >>> notebook_html("A", answer="B < C")
    '<p>A</p><p><b>B &lt; C</b></p>'
    """
    parts = [html_table([("", columns), *rows]) for columns, rows in tables]
    said = f"<p><b>{escape(answer)}</b></p>" if answer else ""
    return f"<p>{escape(title)}</p>{''.join(parts)}{said}"


@contextmanager
def notebook_progress(report: Report | None) -> Iterator[Report | None]:
    """Yield the report that was given, or inside of Jupyter one that draws a bar.

    >>> with notebook_progress(print) as report:
    ...     report(0.5, "half")
    0.5 half
    """
    if report is not None or not _in_jupyter():
        yield report
        return
    bar = _Bar()
    try:
        yield bar.report
    finally:
        bar.clear()


def _in_jupyter() -> bool:
    """Return whether this is a notebook's kernel, and BUSDOOR_PROGRESS=0 is not set."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") and os.environ.get("BUSDOOR_PROGRESS") != "0"


class _Bar:
    """A bar in the output of a cell, which appears after a second and goes at the end."""

    def __init__(self) -> None:
        self.shown_s = monotonic() + PATIENCE_S - REFRESH_S
        self.handle: Any = None

    def report(self, share: float, what: str) -> None:
        """Draw the share that is done."""
        if monotonic() < self.shown_s + REFRESH_S:
            return
        self.shown_s = monotonic()
        text = f'<progress value="{share:.3f}"></progress> {share:.0%} {escape(what)}'
        self._show({"text/html": text, "text/plain": f"{share:.0%} {what}"})

    def clear(self) -> None:
        """Leave nothing behind."""
        if self.handle is not None:
            self._show({"text/html": "", "text/plain": ""})

    def _show(self, content: dict[str, str]) -> None:
        if self.handle is None:
            self.handle = import_module("IPython.display").display(
                content, raw=True, display_id=True
            )
        else:
            self.handle.update(content, raw=True)
