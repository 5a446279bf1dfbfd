"""What a command prints: with --json one line to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any

from busdoor.core.json import to_json
from busdoor_workloads.text import printable

Answer = Callable[[Callable[[], Any]], None]


@contextmanager
def output(json: bool) -> Iterator[Answer]:
    """Print to stdout; with JSON only the answer goes there, everything else to stderr.

    Yields what takes a function that returns the answer, and prints that as JSON if requested.

    >>> with output(json=True) as answer:
    ...     print("a table")
    ...     answer(lambda: {"gain": float("nan")})
    {"gain": null}
    """
    stdout = sys.stdout

    def answer(make: Callable[[], Any]) -> None:
        if json:
            print(to_json(make()), file=stdout)

    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield answer


def note(text: str) -> None:
    """Print a line to stderr, if it is open."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print to stderr what a reader of a file changed or ignored."""
    for text in notes:
        note(f"busdoor: note: {printable(text)}")


def print_warnings(sentences: Iterable[str]) -> None:
    """Print to stderr what concerns the answer without being part of it."""
    for sentence in sentences:
        note(f"busdoor: {sentence}")
