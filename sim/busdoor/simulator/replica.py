"""A replica: one server of a cluster, before it is put to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime
from busdoor_workloads import Trace


@dataclass(frozen=True)
class Replica:
    """One server: its scheduler with its own KV memory, and its step time.

    Parameters
    ----------
    policy : Policy
        A fresh scheduler; it serves one run.
    step_time : StepTime
        Seconds that an iteration takes; replicas may share one.
    weight : float
        Share of the load that it can take, relative to the others: what a router that heeds weights
        divides by.
    about : mapping
        What else a result should say of it in `meta["replicas"]`.

    Examples
    --------
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.step_time import LinearStepTime
    >>> Replica(VllmPolicy(PagedKV(64, 16), 4, 512, 512), LinearStepTime(base_s=0.01), weight=0)
    Traceback (most recent call last):
    ValueError: a replica's weight is 0; it must be more than 0
    """

    policy: Policy
    step_time: StepTime
    weight: float = 1.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"a replica's weight is {self.weight}; it must be more than 0")

    @property
    def block_size(self) -> int:
        """Tokens in a KV block; 1 where the policy has no blocks."""
        return int(getattr(getattr(self.policy, "kv", None), "block_size", 1))


def check_replicas(replicas: Sequence[Replica], trace: Trace) -> None:
    """Raise ValueError where replicas cannot serve side by side, in one sentence."""
    if not replicas:
        raise ValueError("a cluster of 0 replicas serves no request; give one or more")
    policies: dict[int, int] = {}
    for number, replica in enumerate(replicas):
        for part in (replica.policy, getattr(replica.policy, "kv", replica.policy)):
            other = policies.setdefault(id(part), number)
            if other != number:
                raise ValueError(
                    f"replicas {other} and {number} share a {type(part).__name__}; each needs its "
                    f"own"
                )
    sizes = sorted({replica.block_size for replica in replicas})
    if trace.hash_ids is not None and len(sizes) > 1:
        raise ValueError(
            f"the replicas have KV blocks of {sizes[0]} and of {sizes[-1]} tokens; "
            f"for a trace with hash_ids they must be of one size"
        )
