"""The table [policy], or several [[policy]]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from busdoor.catalog import default_max_num_batched_tokens, default_max_num_seqs
from busdoor.config.tables import STRICT, GPUTable, reject_unknown
from busdoor.config.toml import parse_value
from busdoor.policies import policy_config

if TYPE_CHECKING:
    from busdoor.kv.config import KVConfig
    from busdoor.policies.base import Policy
    from busdoor_workloads import Trace


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolicyTable:
    """[policy]: a scheduler by name, with its fields.

    Parameters
    ----------
    name : str
        A built-in policy, or the import path of your own.
    label : str
        What tables and plots call it; the name, and what sets it apart where a name comes twice.
    config : object
        The policy's own configuration.
    """

    name: str
    label: str
    config: Any

    @classmethod
    def from_table(cls, table: Mapping[str, Any], card: GPUTable) -> PolicyTable:
        """Build it from a TOML table; limits that vLLM chooses by the GPU are chosen so where the table is silent."""
        rest = dict(table)
        name, label = rest.pop("name", None), rest.pop("label", None)
        if not isinstance(name, str):
            raise ValueError(f'[policy] name = {name!r}: it has to name a policy, as in name = "vllm"')
        if ":" in name:  # somebody else's: it checks its own fields when it is built
            return cls(name=name, label=label or name, config=policy_config(name, **rest))
        known = {field.name for field in fields(_config(name, {}))}
        reject_unknown("[policy]", rest, known | {"label"})
        limits = {
            "max_num_seqs": default_max_num_seqs(card.name),
            "max_num_batched_tokens": default_max_num_batched_tokens(card.name),
        }
        chosen = {key: value for key, value in limits.items() if getattr(_config(name, {}), key, None) is not None}
        return cls(name=name, label=label or name, config=_config(name, {**chosen, **rest}))

    def capped(self, max_output_tokens: int) -> PolicyTable:
        """Return the policy with this cap on answers whose clients gave none, if it knows caps and has none itself."""
        if getattr(self.config, "max_output_tokens", max_output_tokens) is not None:
            return self
        return self.with_fields(self.label, max_output_tokens=max_output_tokens)

    def build(self, kv: KVConfig, trace: Trace) -> Policy:
        """Make a fresh scheduler for one run of a trace."""
        policy: Policy = self.config.build(kv, trace)
        return policy

    def with_fields(self, label: str, **changes: Any) -> PolicyTable:
        """Return the policy with other fields, under another label."""
        return replace(self, label=label, config=replace(self.config, **changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON would hold it."""
        own = {field.name: getattr(self.config, field.name) for field in fields(self.config)}
        own = own["fields"] if ":" in self.name else own
        label = {} if self.label == self.name else {"label": self.label}
        return {"name": self.name, **label, **{key: value for key, value in own.items() if value is not None}}


def _config(name: str, table: Mapping[str, Any]) -> Any:
    """Make the policy's own configuration; a wrong name or value is one sentence."""
    try:
        return policy_config(name, **table)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("[policy]") else f"[policy] name: {said}") from error


def parse_policy(text: str) -> dict[str, Any]:
    """Read a policy as a flag gives it: its name, and fields after commas.

    Examples
    --------
    >>> parse_policy("static,batch_size=16,finished_rows=skip")
    {'name': 'static', 'batch_size': 16, 'finished_rows': 'skip'}
    """
    name, *rest = text.split(",")
    table: dict[str, Any] = {"name": name.strip()}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--policy {text}: {part!r} is no FIELD=VALUE; write it as in static,batch_size=16")
        table[key.strip()] = parse_value(value.strip())
    return table


def label_policies(policies: Sequence[PolicyTable]) -> tuple[PolicyTable, ...]:
    """Give policies of the same label labels of their own, by the first field in which they differ, else by number."""
    counts = Counter(policy.label for policy in policies)
    return tuple(
        replace(policy, label=_apart(policy, index, policies)) if counts[policy.label] > 1 else policy
        for index, policy in enumerate(policies)
    )


def _apart(policy: PolicyTable, index: int, policies: Sequence[PolicyTable]) -> str:
    same = [other for other in policies if other.label == policy.label]
    for field in fields(policy.config):
        values = [str(getattr(other.config, field.name, None)) for other in same]
        if len(set(values)) == len(same):
            return f"{policy.label} ({field.name} {str(getattr(policy.config, field.name)).lower()})"
    return f"{policy.label} ({1 + sum(other.label == policy.label for other in policies[:index])})"
