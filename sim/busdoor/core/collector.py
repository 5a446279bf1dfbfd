"""Python's search for reference cycles, made seldom while a run makes objects by the million."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two searches. Requests, batches and events are freed by their counts; a search
# every 700 of them, Python's own number, takes 1 to 3 % of a run and finds nothing.
SELDOM = 50_000


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Search seldom inside the `with` block, and as before after it.

    >>> before = gc.get_threshold()
    >>> with seldom_collected():
    ...     gc.get_threshold()[0] >= SELDOM
    True
    >>> gc.get_threshold() == before
    True
    """
    before = gc.get_threshold()
    if before[0]:  # 0: switched off
        gc.set_threshold(max(before[0], SELDOM), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
