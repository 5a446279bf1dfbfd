"""The base class of arrival processes: draw the times of n requests, and change the rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import PlainValidator

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.config import pick


class Arrivals(ABC):
    """A process that draws arrival times.

    Subclasses have a name `process` for configuration files, and define `times` and `at_rate`.
    """

    process: ClassVar[str]

    @abstractmethod
    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the first `n` arrival times, in seconds from 0, not decreasing, shape (n,)."""

    @abstractmethod
    def at_rate(self, request_rate: float) -> Arrivals:
        """Return the same kind of process at `request_rate` requests per second on average."""

    def expected(self, until_s: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return times from 0 to `until_s`, and the arrivals expected by each: for windows.

        Between them the rate is even, and the arrivals of separate times are independent: Poisson
        arrivals whose rate changes. Raises ValueError for any other process.
        """
        raise ValueError(
            f"{self.process} arrivals cannot be drawn in windows, as each gap depends on the "
            f"arrival before; use poisson, diurnal, weekly, mmpp2, ramp or spike"
        )

    def path_bytes(self, num_requests: float, duration_s: float) -> float:
        """Return the memory that `expected` takes for so many requests or seconds, the longer."""
        return 0.0


def as_arrivals(value: object) -> Arrivals:
    """Return the arrival process of a configuration's value: a number is a Poisson rate.

    Parameters
    ----------
    value : float, mapping or Arrivals
        ``4.0`` (requests per second) or ``{"process": "gamma", "request_rate": 4.0, "burstiness":
        0.5}``.

    Raises
    ------
    ValueError
        Unknown process or key, with the nearest known name; a value out of range.

    Examples
    --------
    >>> as_arrivals(4.0)
    Poisson(request_rate=4.0, normalize_duration=False)
    >>> as_arrivals({"process": "gamma", "request_rate": 4, "burstyness": 1})
    Traceback (most recent call last):
        ...
    ValueError: gamma has no 'burstyness'; did you mean 'burstiness'?
    """
    if isinstance(value, Arrivals):
        return value
    if isinstance(value, Mapping):
        return pick(Arrivals, "process", value)  # type: ignore[type-abstract]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return pick(Arrivals, "process", {"process": "poisson", "request_rate": value})  # type: ignore[type-abstract]
    raise ValueError(f"{value!r} is neither a request rate nor a table with a 'process'")


AnyArrivals = Annotated[Arrivals, PlainValidator(as_arrivals)]
