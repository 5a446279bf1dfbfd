"""What the table [policy] of a configuration becomes: something that builds a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass

from busdoor.core.import_paths import import_class
from busdoor.core.registry import in_one_sentence
from busdoor.kv.config import KVConfig
from busdoor.policies.base import Policy
from busdoor.policies.queues import Queue, ShortestJobQueue
from busdoor_workloads import Trace
from busdoor_workloads.given import instance

# What `vllm serve` takes where nothing is said, on a GPU of 70 GiB or more that is no A100
# (vLLM's EngineArgs.get_batch_defaults). All policies have the same limits unless others are given.
MAX_NUM_SEQS = 1024

# Standard deviation of the prediction's logarithm: at 10, typical predictions are off by a factor
# of 22,000.
LengthError = Annotated[float, Field(ge=0, le=10)]
T = TypeVar("T")

# Of every built-in policy, by its class of settings; filled where both are known, in
# `busdoor.policies`.
BUILDERS: dict[type[Any], Callable[..., Policy]] = {}


class PolicyConfig(Protocol):
    """Validated settings of a policy, before the memory and the trace are known."""

    @property
    def name(self) -> str:
        """What the policy is called in configurations and tables."""

    def build(self, kv: KVConfig, trace: Trace | None = None) -> Policy:
        """Build the policy for a server's memory; `trace` settles defaults that depend on lengths.

        Raises
        ------
        ValueError
            If the settings do not go with the memory or the trace, in one sentence.
        """


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Turn a class into one of settings: frozen, by keyword, checked; a mistake is one sentence.

    >>> QueueFields(queue="lifo")
    Traceback (most recent call last):
    ValueError: QueueFields queue = 'lifo': input should be 'fcfs', 'priority' or 'sjf'
    """
    made = checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    return in_one_sentence(cast("type[T]", made))


@settings
class BuiltInConfig(ABC):
    """Settings of a built-in policy: written only here; the policy takes them as keywords.

    This module and `whole_batch_config` and `continuous_config` know no policy, because a policy
    may be compiled and pydantic's classes cannot be; `BUILDERS` has what each class of settings
    builds.
    """

    name: ClassVar[str]

    max_num_seqs: PositiveInt = MAX_NUM_SEQS
    """Most running requests; of a static batch, most rows, whatever would fit."""

    def build(self, kv: KVConfig, trace: Trace | None = None) -> Policy:
        """Build the policy for a server's memory; `trace` settles defaults that depend on lengths.

        Raises ValueError if the settings do not go with the memory or the trace, in one sentence.
        """
        instance(
            "kv", kv, KVConfig, "a KVConfig, as in KVConfig(num_blocks=1000, max_model_len=2048)"
        )
        if trace is not None:
            instance("trace", trace, Trace, "a Trace")
        return BUILDERS[type(self)](max_model_len=kv.max_model_len, **self.arguments(kv, trace))

    @abstractmethod
    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for `max_model_len`."""

    def settings(self, *without: str) -> dict[str, Any]:
        """Return the fields but for some, by name."""
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in without
        }


@settings
class QueueFields:
    """Settings of the waiting line, which the policies that admit at every iteration share.

    >>> QueueFields(queue="sjf", length_error=0.5).make_queue().error
    0.5
    """

    queue: Literal["fcfs", "priority", "sjf"] = "fcfs"
    """The next to enter: the first to arrive, the smallest priority, or the shortest answer."""
    length_error: LengthError = 0.0
    """With `queue = "sjf"`, how far off lengths are predicted: standard deviation of the logarithm
    of predicted over true length. 0 is exact, 0.7 is mostly within a factor of two."""
    length_seed: NonNegativeInt = 0
    """Seed of the predictions."""

    def __post_init__(self) -> None:
        for name in ("length_error", "length_seed"):
            value = getattr(self, name)
            if value and self.queue != "sjf":
                raise ValueError(
                    f"{name} = {value} applies only to queue = 'sjf', not {self.queue!r}"
                )

    def make_queue(self) -> str | Queue:
        """Return a waiting line, or its name where that suffices."""
        if self.queue == "sjf":
            return ShortestJobQueue(self.length_error, self.length_seed)
        return self.queue


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
