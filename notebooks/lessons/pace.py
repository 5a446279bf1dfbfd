"""How long a lesson may take: all of it, or a glimpse."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def pace(full: T, fast: T) -> T:
    """Return `full`, or `fast` where BUSDOOR_FAST=1 is set: to try a notebook's code.

    Parameters
    ----------
    full, fast : object
        A number of requests, a list of rates or whatever else decides how long something takes.

    Examples
    --------
    >>> import os
    >>> pace(2000, 100) == (100 if os.environ.get("BUSDOOR_FAST") == "1" else 2000)
    True
    """
    return fast if os.environ.get("BUSDOOR_FAST") == "1" else full
