"""What the simulator asks of a step-time model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from busdoor.core.batch import Batch

# eleven days for one token or request: what is more is no step time, and sums of it overflow
MAX_TERM_S = 1e6
TermSeconds = Annotated[float, Field(ge=0, le=MAX_TERM_S)]
Line = tuple[float, float]
Pieces = Sequence[tuple[int, float, float]]


class StepTime(ABC):
    """Seconds that an iteration takes.

    A batch that repeats grows by one context token per row and repetition. A model that is linear
    in that growth implements `line`, and the simulator sums the stretch in closed form; any other
    model implements `durations_s` alone and is summed by vector. Write your own by subclassing and
    implementing `durations_s`.

    Examples
    --------
    >>> class Wave(StepTime):
    ...     def durations_s(self, batch, repeat):
    ...         return 0.01 + 1e-4 * np.sin(batch.decode_context_tokens + np.arange(repeat)) ** 2
    >>> round(Wave().duration_s(Batch(num_decode_tokens=1)), 4)
    0.01
    """

    @abstractmethod
    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""

    def line(self, batch: Batch) -> Line | None:
        """Seconds of the first iteration, and growth per repetition; None if it is no line."""
        return None

    def line_function(self) -> Callable[[Batch], Line | None]:
        """Return what computes `line`; the simulator asks once, and calls it at every event."""
        return self.line

    def pieces(self, batch: Batch, repeat: int) -> Pieces | None:
        """Return lines that follow one another, of a model that is no single line; None as here.

        Of each: how many of the `repeat` iterations lie on it, seconds of the first of them, and
        how many more each one takes.
        """
        return None

    def ahead(self, batch: Batch, lead_s: float | None) -> BatchAhead | None:
        """Return how a batch runs while the host submits the next one (lookahead 1); None: alone.

        Parameters
        ----------
        batch : Batch
            What runs.
        lead_s : float or None
            What `BatchAhead.last` of the batch before returned; None where nothing ran before, so
            that the batch itself is submitted first.
        """
        return None

    def duration_s(self, batch: Batch) -> float:
        """Seconds that one iteration of the batch takes."""
        line = self.line(batch)
        return line[0] if line else float(self.durations_s(batch, 1)[0])

    @property
    def num_groups(self) -> int:
        """Groups of `tp` GPUs that one server has: stages of layers, or shares of the requests."""
        return 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the model, a sentence each."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Name and parameters, as a result's meta.json keeps them."""
        return {"name": f"{type(self).__module__}:{type(self).__qualname__}"}


class LineStepTime(StepTime):
    """A model whose duration is linear in the decodes' context: implement `line` alone."""

    @abstractmethod
    def line(self, batch: Batch) -> Line:
        """Seconds of the first iteration, and how many more each repetition takes."""

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""
        first_s, growth_s = self.line(batch)
        return first_s + growth_s * np.arange(repeat, dtype=np.float64)


class BatchAhead(StepTime):
    """The step time of a batch on a host that submits each iteration while the last runs."""

    @property
    @abstractmethod
    def single(self) -> bool:
        """Whether the first iteration is unlike those after, so must be a stretch of its own."""

    @abstractmethod
    def last(self, repeat: int, following: Batch | None) -> tuple[float, float | None]:
        """Return the seconds of the last of `repeat` iterations, and the next's lead, if any."""
