"""What goes where: an answer as one line of JSON to stdout, and then everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any

Answer = Callable[[Callable[[], Any]], None]


@contextmanager
def telling(json: bool) -> Iterator[Answer]:
    """Leave stdout to one line of JSON, if it was asked for: all that is printed meanwhile goes to stderr.

    Yields
    ------
    callable
        Takes what makes the answer, and prints that; does nothing where no JSON was asked for.

    Examples
    --------
    >>> with telling(json=True) as answer:
    ...     print("a table")
    ...     answer(lambda: {"gain": float("nan")})
    {"gain": null}
    """
    from busdoor.core.json import to_json

    stdout = sys.stdout

    def answer(make: Callable[[], Any]) -> None:
        if json:
            print(to_json(make()), file=stdout)

    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield answer


def note(text: str) -> None:
    """Print a remark to stderr; a closed stderr is no reason to end."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
