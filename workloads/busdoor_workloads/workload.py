"""A workload: laws of lengths and arrivals, from which any number of requests can be generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Annotated, Any

from pydantic import Field

from busdoor_workloads.arrivals import AnyArrivals, Burst, ClosedLoop
from busdoor_workloads.config import Positive, Tokens, config
from busdoor_workloads.durations import AnySeconds
from busdoor_workloads.given import table as a_table
from busdoor_workloads.lengths import AnyLengths, AnyPairs, Independent, Pairs
from busdoor_workloads.sessions import MultiTurn, SharedPrefix
from busdoor_workloads.trace import Trace


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
class Workload:
    """What arrives: how long requests are, when they come, and what they share.

    Parameters
    ----------
    name : str
        What tables and plots call it.
    num_requests : int
        How many to generate unless `generate` is told otherwise (vLLM's `--num-prompts`, same default).
    duration_s : float, optional
        Generate as many as arrive in so many seconds instead.
    input_tokens, output_tokens : Lengths, table or int
        The two laws, independent of each other. In a session or after a shared prefix, the input is what is new.
    lengths : Pairs or table
        Instead of the two: a joint law.
    arrival : Arrivals, table or float
        When requests arrive; a number is a Poisson rate. All at once if left out.
    multi_turn : MultiTurn or table, optional
        Conversations.
    shared_prefix : SharedPrefix or table, optional
        Groups of prompts with a common beginning.
    timeout_s : float or distribution, optional
        The client gives up so many seconds after arrival.
    max_output_tokens : int, optional
        The cap the client asks for; longer answers stop there.
    max_output_factor : float, optional
        Instead: the client asks for this multiple of what it will get, rounded up (1: it knows).
    priorities : list of PriorityClass or tables
        Classes, drawn independently for each request.
    source, licence, note : str
        Where the numbers come from, under which terms, and what the workload leaves out; kept in the trace's metadata.

    Raises
    ------
    ValueError
        One sentence that names the key, the value and what would be right.

    Examples
    --------
    >>> chat = Workload(input_tokens={"type": "lognormal", "p50": 900, "p99": 6000}, output_tokens=128, arrival=4.0)
    >>> trace = chat.generate(seed=1, num_requests=3)
    >>> trace.input_tokens, trace.arrival_s.round(2)
    (array([2475, 2050, 1492]), array([0.02, 0.35, 0.89]))
    >>> chat.generate(seed=1, num_requests=3, request_rate=8).arrival_s.round(2)
    array([0.01, 0.17, 0.44])
    """

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
            raise ValueError(f"workload {self.name!r} needs input_tokens and output_tokens, or lengths instead of both")
        if self.max_output_tokens is not None and self.max_output_factor is not None:
            raise ValueError(f"workload {self.name!r} has max_output_tokens and max_output_factor; give one of them")
        if self.multi_turn is not None and isinstance(self.arrival, ClosedLoop):
            raise ValueError(f"workload {self.name!r} has a closed loop and multi_turn, which has its own think_time_s")

    @property
    def pairs(self) -> Pairs:
        """The joint law of input and output tokens."""
        if self.input_tokens is not None and self.output_tokens is not None:
            return Independent(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        assert self.lengths is not None  # __post_init__ saw to it
        return self.lengths

    def at_rate(self, request_rate: float) -> Workload:
        """Return the workload with arrivals at `request_rate` requests per second on average.

        A parametric process keeps its shape; a burst, a closed loop and a process fitted to a trace become Poisson.
        """
        if not (isinstance(request_rate, Real) and request_rate > 0):
            raise ValueError(
                f"request_rate is {request_rate!r}; it must be a number of requests per second, more than 0"
            )
        return replace(self, arrival=self.arrival.at_rate(request_rate))

    def generate(self, seed: int = 0, *, num_requests: int | None = None, request_rate: float | None = None) -> Trace:
        """Draw a trace.

        Parameters
        ----------
        seed : int
            Same seed, same bytes.
        num_requests : int, optional
            How many; the workload's own number, or what arrives in its `duration_s`, if left out.
        request_rate : float, optional
            Requests per second, as by `at_rate`; the workload's own arrivals if left out. The lengths do not change.

        Returns
        -------
        Trace
            In order of arrival.
        """
        from busdoor_workloads.generate import generate, generate_until

        workload = self if request_rate is None else self.at_rate(request_rate)
        if num_requests is None and self.duration_s is not None:
            return generate_until(workload, seed, self.duration_s)
        return generate(workload, seed, self.num_requests if num_requests is None else num_requests)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Workload:
        """Build a workload from what a configuration file says.

        Parameters
        ----------
        table : mapping
            The fields of `Workload`. With ``base``, the name of a profile or preset, the other keys change that one;
            `request_rate` sets its rate.

        Raises
        ------
        ValueError
            One sentence that names the key, the value and what would be right, or the nearest right name.

        Examples
        --------
        >>> slow = Workload.from_table({"base": "azure-conv", "request_rate": 2, "timeout_s": 30})
        >>> slow.arrival, slow.timeout_s
        (Poisson(request_rate=2.0, normalize_duration=False), 30.0)
        """
        keys = a_table("the workload", table)
        base, request_rate = keys.pop("base", None), keys.pop("request_rate", None)
        workload = cls(**keys) if base is None else _changed(base, keys)
        return workload if request_rate is None else workload.at_rate(request_rate)


def _changed(base: str, keys: Mapping[str, Any]) -> Workload:
    from busdoor_workloads.catalog import resolve

    workload = resolve(base)
    if "input_tokens" in keys or "output_tokens" in keys:
        pairs = workload.pairs
        keys = {"input_tokens": pairs.inputs, "output_tokens": pairs.outputs, "lengths": None} | dict(keys)
    return Workload(**{name: getattr(workload, name) for name in workload.__dataclass_fields__} | dict(keys))
