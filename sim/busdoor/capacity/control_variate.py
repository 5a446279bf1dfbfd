"""A control variate: how lucky the draws of a run were, shown by a queue so simple that its law is known.

Long waits come in clusters, so that runs of thousands of requests still differ much from each other. Most of that is in
the draws: where many long requests come at once, any server falls behind. A single queue that is fed the same requests
falls behind at the same moments, and costs next to nothing to run; over many more draws its expectation is known. What
the runs have by luck more or less than that is taken off by regression. See `busdoor.capacity.control_fcfs` and
`busdoor.capacity.control_static` for the queues.

References
----------
Lavenberg, Welch, "A perspective on the use of control variables to increase the efficiency of Monte Carlo simulations",
Management Science 27 (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.steady_state import Window
from busdoor.metrics.slo_target import Target
from busdoor.metrics.statistics import Interval, mean_interval, student_t
from busdoor_workloads import Trace

Floats = NDArray[np.float64]

LEAST_REPLICATIONS = 5  # with fewer, the slope costs more degrees of freedom than it is worth


class Control(NamedTuple):
    """What the simple queue did in each replication, less what it does on average.

    `values` has one per replication; `error` is the standard error of that average. `slope` is how much a run has more
    for each that the queue has more, where that is known: where the queue is the server itself.
    """

    values: Floats
    error: float
    slope: float | None = None

    @property
    def reaches(self) -> bool:
        """Whether the average is near enough to the values for a line through them to be read there.

        Not where guessing would more than double the variance, as where no replication has any backlog.
        """
        centre = float(self.values.mean())
        around = self.values - centre
        return len(self.values) * centre**2 < float(around @ around)


def controlled_interval(values: Floats, control: Control | None, confidence: float) -> Interval:
    """Interval of a mean, with what the control explains taken off: by its slope, else by regression.

    Parameters
    ----------
    values : array of float, shape (n,)
        One per replication.
    control : Control, optional
        Of the same replications; one without a slope is left out where it does not reach, or where there are too few.
        That is decided without a look at the values, so that the interval stays what it says.
    confidence : float
        Two-sided.

    Examples
    --------
    The control explains all that differs, and says that these draws were 0.25 too high:

    >>> luck = np.array([-0.25, 0.75, -0.25, 0.75, 0.25])
    >>> controlled_interval(3 + 2 * luck, Control(luck, 0.0), 0.9)
    Interval(mean=3.0, low=3.0, high=3.0)
    """
    n = len(values)
    if control is not None and control.slope is not None:
        left = mean_interval(values - control.slope * control.values, confidence)
        half = np.hypot(left.half_width, student_t(confidence, n - 1) * control.slope * control.error)
        return Interval(left.mean, float(left.mean - half), float(left.mean + half))
    if control is None or n < LEAST_REPLICATIONS or not control.reaches:
        return mean_interval(values, confidence)
    centre = float(control.values.mean())
    around = control.values - centre
    squares = float(around @ around)
    slope = float(around @ values) / squares
    mean = float(values.mean()) - slope * centre
    left = values - values.mean() - slope * around
    variance = float(left @ left) / (n - 2) * (1 / n + centre**2 / squares) + (slope * control.error) ** 2
    half = student_t(confidence, n - 2) * variance**0.5
    return Interval(mean, mean - half, mean + half)


class Queue(Protocol):
    """A server so simple that it is solved for many draws at once, a row each."""

    def draws(self, traces: Sequence[Trace], length: int) -> Any:
        """Return what it needs of the first requests of traces at one request per second, whatever the rate will be."""

    def lateness(self, draws: Any, request_rate: float) -> Callable[[Target], Floats]:
        """Return what tells how late each request is as a target sees it, shape (draws, n)."""

    def control(self, target: Target, own: Floats, others: Floats, ratio: float) -> Control:
        """Compare the lateness of the runs' requests with that of many draws, one row per draw.

        `ratio` is what the runs show over its limit.
        """


@dataclass(frozen=True)
class StandIn:
    """A simple queue that is fed the same requests as the runs, and many more draws of them.

    Parameters
    ----------
    traces : sequence of Trace
        One per replication, at one request per second.
    reference : callable
        Returns many more draws, of so many requests.
    queue : Queue
        Takes the server's place.
    """

    traces: Sequence[Trace]
    reference: Callable[[int], Sequence[Trace]]
    queue: Queue
    _drawn: dict[int, Sequence[Any]] = field(default_factory=dict, init=False, repr=False)

    def controls(
        self, targets: Sequence[Target], ratios: Sequence[float], request_rate: float, length: int, window: Window
    ) -> list[Control]:
        """Compare the runs with the reference, in the same window, target by target.

        `ratios` are what the runs show of each target over its limit.
        """
        if length not in self._drawn:
            self._drawn.clear()  # runs only get longer
            self._drawn[length] = [self.queue.draws(traces, length) for traces in (self.traces, self.reference(length))]
        ours, theirs = (self.queue.lateness(draws, request_rate) for draws in self._drawn[length])
        rows = slice(window.begin, window.end)
        return [
            self.queue.control(target, ours(target)[:, rows], theirs(target)[:, rows], ratio)
            for target, ratio in zip(targets, ratios, strict=True)
        ]


def compared(own: NDArray[Any], others: NDArray[Any], slope: float | None = None) -> Control:
    """Return by how much the means of the runs' rows are above what those of many draws are in the mean."""
    expected = others.mean(axis=1)
    return Control(own.mean(axis=1) - expected.mean(), float(expected.std(ddof=1)) / len(expected) ** 0.5, slope)
