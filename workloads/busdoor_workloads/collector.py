"""Python's search for reference cycles, made seldom while objects are made by the million."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two searches. Records, requests, batches and events are freed by their counts;
# a search every 700 of them, Python's own number, takes a quarter of the time to read a trace, 1 to
# 3 % of a run and a tenth of the time to import what a command needs, and finds nothing.
SELDOM = 200_000


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
