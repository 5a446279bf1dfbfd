"""A control variate: how lucky the draws of a run were, told by a queue so simple that its law is known.

Long waits come in clusters, so that runs of thousands of requests still differ much from each other. Most of that is in
the draws: where many long requests come at once, any server falls behind. A single queue that is fed the same requests
falls behind at the same moments, and costs next to nothing to run; over many more draws its expectation is known. What
the runs have by luck more or less than that is taken off by regression.

References
----------
Lavenberg, Welch, "A perspective on the use of control variables to increase the efficiency of Monte Carlo simulations",
Management Science 27 (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.slo import Target
from busdoor.capacity.window import Window
from busdoor.statistics import Interval, mean_interval, student_t
from busdoor_workloads import Trace

Floats = NDArray[np.float64]

LEAST_REPLICATIONS = 5  # with fewer, the slope costs more degrees of freedom than it is worth
_STEP = 1.1  # lengths are stretched by so much to see what a token costs


class Control(NamedTuple):
    """What the simple queue did in each replication, less what it does on average.

    `values` has one a replication; `error` is the standard error of that average.
    """

    values: Floats
    error: float

    @property
    def reaches(self) -> bool:
        """Whether the average is near enough to the values for a line through them to be read there.

        Not where guessing would more than double the variance, as where no replication has any backlog.
        """
        centre = float(self.values.mean())
        around = self.values - centre
        return len(self.values) * centre**2 < float(around @ around)


def controlled_interval(values: Floats, control: Control | None, confidence: float) -> Interval:
    """Interval of a mean, with what the control explains taken off; Student's t of n − 2.

    Parameters
    ----------
    values : array of float, shape (n,)
        One a replication.
    control : Control, optional
        Of the same replications; it is left out where it does not reach, or where there are too few. That is decided
        without a look at the values, so that the interval stays what it says.
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


@dataclass(frozen=True)
class StandIn:
    """A queue with one server, first come first served, that works for each as long as it keeps the real one busy.

    Parameters
    ----------
    traces : sequence of Trace
        One a replication, at one request per second.
    reference : callable
        Returns many more draws, of so many requests.
    work_s : callable
        Seconds of work that each request of a trace brings.
    """

    traces: Sequence[Trace]
    reference: Callable[[int], Sequence[Trace]]
    work_s: Callable[[Trace], Floats]
    _drawn: dict[int, Sequence[tuple[Floats, Floats]]] = field(default_factory=dict, init=False, repr=False)

    def controls(self, targets: Sequence[Target], request_rate: float, length: int, window: Window) -> list[Control]:
        """Compare the runs with the reference, in the same window, target by target.

        For a target on a share of the requests it is the share whose backlog is beyond what that share of the
        reference's has; for a mean, or where that would be guessed from afar, the mean backlog.
        """
        if length not in self._drawn:
            self._drawn.clear()  # runs only get longer
            drawn = self.traces, self.reference(length)
            self._drawn[length] = [self._gaps_and_work(traces, length) for traces in drawn]
        own, others = (
            backlogs(gaps / request_rate, work)[:, window.begin : window.end] for gaps, work in self._drawn[length]
        )
        return [_compared(own, others, target.share) for target in targets]

    def _gaps_and_work(self, traces: Sequence[Trace], length: int) -> tuple[Floats, Floats]:
        """Stack the first requests of the traces, a row each."""
        arrival = np.stack([trace.arrival_s[:length] for trace in traces])
        return np.diff(arrival), np.stack([self.work_s(trace)[:length] for trace in traces])


def backlogs(gaps_s: Floats, work_s: Floats) -> Floats:
    """Work that each request finds ahead of it in a queue that begins empty (Lindley's recursion), along the last axis.

    Examples
    --------
    >>> backlogs(np.array([[1.0, 1.0, 9.0]]), np.array([[3.0, 1.0, 1.0, 1.0]]))
    array([[0., 2., 2., 0.]])
    """
    ahead = np.zeros_like(work_s)
    np.cumsum(work_s[..., :-1] - gaps_s, axis=-1, out=ahead[..., 1:])
    ahead -= np.minimum.accumulate(ahead, axis=-1)
    return ahead


def _compared(own: Floats, others: Floats, share: float | None) -> Control:
    mean = _control(own, others)
    if share is None:
        return mean
    beyond = np.quantile(others, share)
    tail = _control(own > beyond, others > beyond)
    return tail if tail.reaches else mean


def _control(own: NDArray[Any], others: NDArray[Any]) -> Control:
    expected = others.mean(axis=1)
    return Control(own.mean(axis=1) - expected.mean(), float(expected.std(ddof=1)) / len(expected) ** 0.5)


@dataclass(frozen=True)
class Work:
    """How much work a request brings: as much as its tokens take away from what a policy carries.

    Parameters
    ----------
    carried_rps : callable
        Requests per second that the policy carries of a trace's lengths, in closed form.
    trace : Trace
        Around whose lengths it is linear.
    scale_rps : float
        Requests per second that it carries indeed: sets the mean.
    """

    carried_rps: Callable[[Trace], float]
    trace: Trace
    scale_rps: float

    def __call__(self, trace: Trace) -> Floats:
        """Return seconds, one a request."""
        fixed, per_input, per_output, scale = self._weights
        work: Floats = scale * (fixed + per_input * trace.input_tokens + per_output * trace.output_tokens)
        return work

    @cached_property
    def _weights(self) -> tuple[float, float, float, float]:
        """Seconds a request, a prompt token and an answer token; and what brings their sum to its mean."""
        lengths = {name: getattr(self.trace, name) for name in ("input_tokens", "output_tokens")}
        means = np.array([tokens.mean() for tokens in lengths.values()])
        seconds = 1 / self.carried_rps(self.trace)
        longer = {name: np.ceil(_STEP * tokens).astype(tokens.dtype) for name, tokens in lengths.items()}
        more = [1 / self.carried_rps(replace(self.trace, **{name: tokens})) for name, tokens in longer.items()]
        grown = np.array([tokens.mean() for tokens in longer.values()])
        slopes = np.maximum(0.0, (np.array(more) - seconds) / (grown - means))
        fixed = max(0.0, seconds - float(slopes @ means))
        scale = 1 / self.scale_rps / (fixed + float(slopes @ means))
        return fixed, float(slopes[0]), float(slopes[1]), scale
