"""What the table [policy] of a configuration becomes: something that builds a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar

from pydantic import ConfigDict, NonNegativeInt
from pydantic.dataclasses import dataclass as checked_dataclass

from busdoor.core.import_paths import import_class
from busdoor.kv.config import KVConfig
from busdoor.policies.base import Policy
from busdoor.policies.queues import LengthError, Queue, ShortestJobQueue
from busdoor_workloads import Trace
from busdoor_workloads.given import instance

S = TypeVar("S")
P = TypeVar("P", bound=Policy)

# What `vllm serve` takes where nothing is said, on a GPU of 70 GiB or more that is no A100
# (vLLM's EngineArgs.get_batch_defaults). All policies have the same limits unless told otherwise.
MAX_NUM_SEQS = 1024
MAX_NUM_BATCHED_TOKENS = 8192


class PolicyConfig(Protocol):
    """Validated settings of a policy, before the memory and the trace are known."""

    @property
    def name(self) -> str:
        """What the policy is called in configurations and tables."""

    def build(self, kv: KVConfig, trace: Trace | None = None) -> Policy:
        """Make the policy for a server with this memory; `trace` settles what defaults to the workload's lengths.

        Raises
        ------
        ValueError
            If the settings do not go with the memory or the trace, in one sentence.
        """


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class QueueFields:
    """Settings of the waiting line, which the policies that admit at every iteration share.

    Parameters
    ----------
    queue : {"fcfs", "priority", "sjf"}
        The next to enter: the first to arrive, the smallest priority, or the shortest answer.
    length_error, length_seed
        How far off the shortest answers are predicted, and the seed of that: see `ShortestJobQueue`. 0 knows the
        lengths.

    Examples
    --------
    >>> QueueFields(queue="sjf", length_error=0.5).make_queue().error
    0.5
    """

    queue: Literal["fcfs", "priority", "sjf"] = "fcfs"
    length_error: LengthError = 0.0
    length_seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        for name in ("length_error", "length_seed"):
            value = getattr(self, name)
            if value and self.queue != "sjf":
                raise ValueError(f"{name} = {value} applies only to queue = 'sjf', not {self.queue!r}")

    def make_queue(self) -> str | Queue:
        """Make the waiting line, or name it where its name says all."""
        return ShortestJobQueue(self.length_error, self.length_seed) if self.queue == "sjf" else self.queue


@dataclass(frozen=True)
class ImportedPolicy:
    """Settings of a user's own policy, named by import path.

    Parameters
    ----------
    name : str
        "package.module:Name" of a subclass of `Policy` that takes a `KVConfig` and the fields.
    fields : mapping
        What it is called with.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def build(self, kv: KVConfig, trace: Trace | None = None) -> Policy:
        """Import the class, and make one with the memory and the fields."""
        make: Callable[..., Policy] = import_class(self.name, Policy, "a policy")
        try:
            return make(kv, **self.fields)
        except TypeError as error:
            raise ValueError(f"{self.name!r} cannot be made a policy of: {error}") from error


def for_memory(build: Callable[[S, KVConfig, Trace | None], P]) -> Callable[..., P]:
    """Make a policy's settings check what the policy is built for: memory, and a trace if there is one."""

    @wraps(build)
    def checked(self: S, kv: KVConfig, trace: Trace | None = None) -> P:
        instance("kv", kv, KVConfig, "a KVConfig, as in KVConfig(num_blocks=1000, max_model_len=2048)")
        if trace is not None:
            instance("trace", trace, Trace, "a Trace")
        return build(self, kv, trace)

    return checked


def check_budget(max_num_batched_tokens: int, max_num_seqs: int) -> None:
    """Raise ValueError where an iteration's tokens do not suffice for one decode of every slot, as vLLM does."""
    if max_num_batched_tokens < max_num_seqs:
        raise ValueError(
            f"max_num_batched_tokens {max_num_batched_tokens} is less than max_num_seqs {max_num_seqs}; "
            f"every running request may decode a token"
        )


def needs_answers(trace: Trace) -> bool:
    """Whether some client of the trace sends its next request only after an answer."""
    return bool(trace.concurrency) or (
        trace.session_id is not None and trace.turn is not None and bool(trace.turn.any())
    )
