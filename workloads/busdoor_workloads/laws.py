"""The laws that a trace is drawn from, as plain data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from busdoor_workloads.arrivals import AnyArrivals, Burst, ClosedLoop
from busdoor_workloads.config import Positive, Tokens, config
from busdoor_workloads.durations import AnySeconds
from busdoor_workloads.lengths import AnyLengths, AnyPairs, Independent, Pairs
from busdoor_workloads.sessions import MultiTurn, SharedPrefix


@config
class PriorityClass:
    """A share of the requests with the same priority.

    Parameters
    ----------
    priority : int
        Smaller is served first.
    weight : float
        Its share, in any unit.
    """

    priority: int
    weight: Positive = 1.0


@config
class Laws:
    """The fields of `Workload`, which documents them."""

    name: str = "workload"
    num_requests: Annotated[int, Field(ge=0)] = 1000
    duration_s: Positive | None = None
    input_tokens: AnyLengths | None = None
    output_tokens: AnyLengths | None = None
    lengths: AnyPairs | None = None
    arrival: AnyArrivals = Burst()
    multi_turn: MultiTurn | None = None
    shared_prefix: SharedPrefix | None = None
    timeout_s: AnySeconds | None = None
    max_output_tokens: Tokens | None = None
    max_output_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    priorities: tuple[PriorityClass, ...] = ()
    source: str = ""
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        given = [law is not None for law in (self.input_tokens, self.output_tokens, self.lengths)]
        if given not in ([True, True, False], [False, False, True]):
            raise ValueError(
                f"workload {self.name!r} needs input_tokens and output_tokens, or lengths instead "
                f"of both"
            )
        if self.max_output_tokens is not None and self.max_output_factor is not None:
            raise ValueError(
                f"workload {self.name!r} has max_output_tokens and max_output_factor; give one of "
                f"them"
            )
        if self.multi_turn is not None and isinstance(self.arrival, ClosedLoop):
            raise ValueError(
                f"workload {self.name!r} has a closed loop and multi_turn, which has its own "
                f"think_time_s"
            )

    @property
    def pairs(self) -> Pairs:
        """The joint law of input and output tokens."""
        if self.input_tokens is not None and self.output_tokens is not None:
            return Independent(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        assert self.lengths is not None  # __post_init__ saw to it
        return self.lengths
