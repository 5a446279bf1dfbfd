"""What the table [policy] of a configuration becomes: something that builds a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from busdoor.kv.config import KVConfig
from busdoor.names import import_object
from busdoor.policies.base import Policy
from busdoor_workloads import Trace

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


@dataclass(frozen=True)
class ImportedPolicy:
    """Settings of a user's own policy, named by import path.

    Parameters
    ----------
    name : str
        "package.module:Name" of a class or function that takes a `KVConfig` and the fields, and makes a `Policy`.
    fields : mapping
        What it is called with.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def build(self, kv: KVConfig, trace: Trace | None = None) -> Policy:
        """Import it and call it with the memory and the fields."""
        make = import_object(self.name)
        try:
            policy = make(kv, **self.fields)
        except TypeError as error:
            raise ValueError(f"{self.name!r} cannot be made a policy of: {error}") from error
        if not isinstance(policy, Policy):
            raise ValueError(
                f"{self.name!r} made a {type(policy).__name__}; it must make a busdoor.policies.base.Policy"
            )
        return policy


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
