"""A control variate: the luck of a run's draws, shown by a queue whose law is known.

Long waits come in clusters, so that runs of thousands of requests still differ much from each
other. Most of that is in the draws: where many long requests come at once, any server falls behind.
A single queue that is fed the same requests falls behind at the same moments, and costs next to
nothing to run; over many more draws its expectation is known. What the runs exceed it by through
luck is subtracted by regression. See `fcfs` and `static` for the queues.

References
----------
Lavenberg, Welch, "A perspective on the use of control variables to increase the efficiency of Monte
Carlo simulations", Management Science 27 (1981).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.core.arrays import Floats
from busdoor.metrics.statistics import Interval, mean_interval, student_t

LEAST_REPLICATIONS = 5  # with fewer, the slope costs more degrees of freedom than it is worth


class Control(NamedTuple):
    """What the simple queue did in each replication, less what it does on average.

    `values` has one per replication; `error` is the standard error of that average. `slope` is a
    run's excess per excess of the queue where that is known: where the queue is the server itself.
    """

    values: Floats
    error: float
    slope: float | None = None

    @property
    def reaches(self) -> bool:
        """Whether the average is near enough to the values for a line through them to hold there.

        Not where extrapolation would more than double the variance, as where no replication has any
        backlog.
        """
        centre = float(self.values.mean())
        around = self.values - centre
        return len(self.values) * centre**2 < float(around @ around)


def controlled_interval(values: Floats, control: Control | None, confidence: float) -> Interval:
    """Return the two-sided interval of a mean less what the control explains.

    Values and control are by replication. A control without a slope is left out where it does not
    reach, or where there are too few; that is decided without a look at the values, so that the
    interval keeps its confidence.

    The control explains all differences, and these draws were 0.25 too high:

    >>> luck = np.array([-0.25, 0.75, -0.25, 0.75, 0.25])
    >>> controlled_interval(3 + 2 * luck, Control(luck, 0.0), 0.9)
    Interval(mean=3.0, low=3.0, high=3.0)
    """
    n = len(values)
    if control is not None and control.slope is not None:
        left = mean_interval(values - control.slope * control.values, confidence)
        half = np.hypot(
            left.half_width, student_t(confidence, n - 1) * control.slope * control.error
        )
        return Interval(left.mean, float(left.mean - half), float(left.mean + half))
    if control is None or n < LEAST_REPLICATIONS or not control.reaches:
        return mean_interval(values, confidence)
    centre = float(control.values.mean())
    around = control.values - centre
    squares = float(around @ around)
    slope = float(around @ values) / squares
    mean = float(values.mean()) - slope * centre
    left = values - values.mean() - slope * around
    variance = (
        float(left @ left) / (n - 2) * (1 / n + centre**2 / squares) + (slope * control.error) ** 2
    )
    half = student_t(confidence, n - 2) * variance**0.5
    return Interval(mean, mean - half, mean + half)


def compared(own: NDArray[Any], others: NDArray[Any], slope: float | None = None) -> Control:
    """Return by how much the means of the runs' rows exceed the mean over many draws."""
    expected = others.mean(axis=1)
    return Control(
        own.mean(axis=1) - expected.mean(),
        float(expected.std(ddof=1)) / len(expected) ** 0.5,
        slope,
    )
