"""A policy: the scheduler as a state machine that reads no clock itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from math import inf
from operator import attrgetter
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch
from busdoor.core.compiled import check_subclass, missing_methods, mypyc_attr
from busdoor.core.request import Request
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import continuous_capacity_rps
from busdoor_workloads import Trace

Item: TypeAlias = tuple[Request, int]
by_admission = attrgetter("admission_index")


class KVUse(NamedTuple):
    """KV memory at one moment, in tokens but for the blocks.

    `reserved` is taken by requests; `used` holds keys and values (the recorder adds the prompt
    tokens that the iteration writes); `unused` is reserved and will never be written; `hole` is
    free but in pieces too small to count on. The rest of what is reserved will be written later.
    """

    blocks: int
    reserved: int
    used: int
    unused: int
    hole: int


def spoken(label: str, whole_batch: bool) -> str:
    """Return a policy's label in words for its kind of batching; one with a remark as it is.

    >>> spoken("multi_bin", True), spoken("vllm", False), spoken("static (best batch, 32)", True)
    ('multi_bin batching', 'continuous batching (vllm)', 'static (best batch, 32)')
    """
    if "(" in label or ":" in label:
        return label
    return f"{label} batching" if whole_batch else f"continuous batching ({label})"


def output_caps(
    trace: Trace, max_model_len: int, max_output_tokens: int | None
) -> NDArray[np.int64]:
    """Return the most tokens each request may generate, as a policy knows; shape (n,)."""
    left = max_model_len - trace.input_tokens
    asked = max_output_tokens if trace.max_output_tokens is None else trace.max_output_tokens
    return left if asked is None else np.minimum(asked, left)


@mypyc_attr(allow_interpreted_subclasses=True)
class Policy:
    """What the simulator and the engine drive: the requests of the next iteration.

    The executor calls `add` for every arrival, `schedule` for the next batch, `stretch` to learn
    for how many iterations that batch would come again, and `complete` when it has run so often.
    The policy allocates KV memory, admits and preempts; it stamps no times.

    Your own policy defines what `REQUIRED` lists; that is checked when a run begins. (An ABC would
    check it sooner, but compiled classes that are ABCs share one cache of isinstance's answers.)

    Attributes
    ----------
    num_slots : int
        Most requests that run at once.
    max_model_len : int
        Longest input + output of a request, in tokens; what `refusal` and `cap` go by.
    max_output_tokens : int, optional
        Cap on the output of requests that come without one.
    streams : bool
        Whether tokens leave the server as they are made; otherwise an answer appears whole.
    whole_batch : bool
        Whether a batch keeps its slots until its last request ends (static batching, the bus), so
        that no request enters in between; otherwise a request may enter and leave at every
        iteration (continuous batching, the door).
    prefill_alone : bool
        Whether no request decodes in an iteration that computes prompts.
    lookahead : int
        When an iteration is decided where neither user nor engine says: 0, at the end of the one
        before; 1, while that still runs.
    """

    num_slots: int
    max_model_len: int
    max_output_tokens: int | None = None
    streams: bool = True
    whole_batch: ClassVar[bool] = False
    prefill_alone: ClassVar[bool] = False
    lookahead: ClassVar[int] = 0
    REQUIRED: ClassVar[tuple[str, ...]] = (
        *("abandon", "add", "complete", "items", "kv_use", "num_running", "num_waiting"),
        *("schedule", "stretch"),
    )
    _used: bool = False

    def __init_subclass__(cls) -> None:
        """Refuse a class that sets what a compiled policy reads of its instances alone."""
        super().__init_subclass__()
        check_subclass(cls, ("num_slots", "max_model_len", "max_output_tokens", "streams"))

    def begin_run(self) -> None:
        """Mark the policy as used: it holds the state of one run, and serves no second one.

        Raises
        ------
        ValueError
            It has served a run before, or lacks a method that it has to define.
        """
        if missing := missing_methods(type(self)):
            raise ValueError(
                f"this {type(self).__name__} has no {' and no '.join(missing)}, which a policy "
                f"needs; define it"
            )
        if self._used:
            raise ValueError(
                f"this {type(self).__name__} has served a run already; make a new policy for "
                f"every run"
            )
        self._used = True

    @abstractmethod
    def add(self, request: Request) -> None:
        """Add an arrived request; one that can never be served gets "refused: <reason>"."""

    def refusal(self, request: Request) -> str:
        """Return why a request can never be served; empty if it can."""
        total = request.input_tokens + request.output_tokens
        if total > self.max_model_len:
            return f"{total} tokens exceed max_model_len {self.max_model_len}"
        return ""

    def cap(self, request: Request) -> int:
        """Return the most tokens that a request may generate, as far as the policy knows."""
        left = self.max_model_len - request.input_tokens
        return min(request.max_output_tokens or self.max_output_tokens or left, left)

    @staticmethod
    def beyond_cap(request: Request, cap: int) -> str:
        """Return why a request's output is too long for the policy's reservation, or empty."""
        if request.output_tokens <= cap:
            return ""
        return f"{request.output_tokens} output tokens exceed max_output_tokens {cap}"

    def close(self) -> None:
        """Close: no arrival is left."""
        return

    @abstractmethod
    def schedule(self, now_s: float) -> Batch | None:
        """Schedule the next iteration; None when there is nothing to run now."""

    @abstractmethod
    def stretch(self, batch: Batch) -> int:
        """Return how many iterations this batch lasts if no request arrives (itself included)."""

    @abstractmethod
    def complete(self, batch: Batch, repeat: int) -> list[Request]:
        """Complete a batch that has run `repeat` times; return the finished requests, in order."""

    def next_wakeup_s(self) -> float:
        """Return when it wants to be asked again though no request arrives; infinity for never."""
        return inf

    def would_admit(self, request: Request) -> bool:
        """Whether a request arriving now might change the running batch: ask before `add`."""
        return True

    @abstractmethod
    def abandon(self, request: Request) -> None:
        """Drop a request, waiting or running (then between iterations), whose client has gone."""

    @abstractmethod
    def items(self, batch: Batch) -> Iterator[Item]:
        """Every request of the batch just decided and its token count, in scheduling order."""

    @property
    @abstractmethod
    def num_waiting(self) -> int:
        """Requests that have arrived and hold no slot."""

    @property
    @abstractmethod
    def num_running(self) -> int:
        """Requests that hold a slot."""

    @abstractmethod
    def kv_use(self) -> KVUse:
        """Return the KV memory as the batch just decided takes it in its first iteration."""

    def kv_blocks(self, repeat: int) -> int:
        """Return the KV blocks taken in iteration `repeat` (from 1) of the batch just decided."""
        return self.kv_use().blocks

    def capacity_rps(self, trace: Trace, step_time: StepTime) -> float:
        """Estimate the requests per second of a trace's lengths that the policy can serve.

        Parameters
        ----------
        trace : Trace
            The lengths.
        step_time : StepTime
            Any model.

        Notes
        -----
        See `continuous_capacity_rps` and `whole_batch_capacity_rps` for the approximations. The
        slots that `tgi` leaves empty until enough wait are counted as taken. The prefix cache is
        unknown here, so that a trace with hits can be served beyond a load of 1. A policy of your
        own inherits this; override it to say better.
        """
        return continuous_capacity_rps(
            step_time,
            trace.input_tokens,
            trace.output_tokens,
            max_num_seqs=self.num_slots,
            kv_tokens=getattr(getattr(self, "kv", None), "num_tokens", inf),
            max_num_batched_tokens=getattr(self, "max_num_batched_tokens", None) or inf,
            reserved_tokens=self.reservations(trace),
            prefill_alone=self.prefill_alone,
        )

    def reservations(self, trace: Trace) -> NDArray[np.int64] | None:
        """Return the KV tokens each request reserves at entry, shape (n,); None if on demand."""
        return None
