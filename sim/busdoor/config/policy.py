"""The table [policy], or several [[policy]]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Any

from pydantic.dataclasses import dataclass

from busdoor.catalog import Engine, default_max_num_batched_tokens, default_max_num_seqs
from busdoor.config.server_tables import GPUTable
from busdoor.core.names import Label
from busdoor.core.registry import checked
from busdoor.core.toml import Document, parse_named
from busdoor.core.units import STRICT, reject_unknown
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor_workloads import Trace

DEFAULT_POLICIES = ("static", "dynamic", "orca", "vllm")


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
    chosen : frozenset of str
        Fields of it that were not set, and were chosen by the GPU.
    """

    name: str
    label: Label
    config: Any
    chosen: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def from_table(
        cls, table: Mapping[str, Any], card: GPUTable, measured: Mapping[str, int] | None = None
    ) -> PolicyTable:
        """Build it from a TOML table; where that is silent, with the limits of the measured server.

        Without such a server they are those that vLLM chooses by the GPU.
        """
        rest = dict(table)
        name, label = rest.pop("name", None), rest.pop("label", None)
        if not isinstance(name, str):
            raise ValueError(
                f'[policy] name = {name!r}: it has to name a policy, as in name = "vllm"'
            )
        if ":" in name:  # a user's own: it checks its own fields when it is built
            return cls._made(name, label, policy_config(name, **rest))
        known = {entry.name for entry in fields(_config(name, {}))}
        reject_unknown("[policy]", rest, known | {"label", "name"})
        chosen = {
            key: value
            for key, value in {**_limits(card), **(measured or {})}.items()
            if key not in rest and getattr(_config(name, {}), key, None) is not None
        }
        config = _config(name, {**chosen, **rest})
        return cls._made(name, label, config, frozenset(chosen.keys() - (measured or {}).keys()))

    @classmethod
    def _made(
        cls, name: str, label: Any, config: Any, chosen: frozenset[str] = frozenset()
    ) -> PolicyTable:
        shown = name if label is None else label
        return checked(
            cls, {"name": name, "label": shown, "config": config, "chosen": chosen}, "[policy]"
        )

    @property
    def field_names(self) -> frozenset[str]:
        """Names of the policy's fields."""
        return frozenset({"name"}.union(entry.name for entry in fields(self.config)))

    @property
    def fills_batches(self) -> bool:
        """Return whether requests wait for a batch to fill, as of a whole-batch policy of ours."""
        return hasattr(self.config, "max_wait_s")

    def on(
        self, card: GPUTable, changes: Mapping[str, Any], measured: Mapping[str, int]
    ) -> PolicyTable:
        """Return the policy on another server, with those of the changes that it has fields for.

        Limits that are not set are those that were measured with, else chosen by the GPU.
        """
        limits = {
            key: value for key, value in {**_limits(card), **measured}.items() if key in self.chosen
        }
        own = {
            key: value
            for key, value in changes.items()
            if ":" in self.name or key in self.field_names
        }
        table = {**self.to_dict(), **limits, **own}
        if limits or own:
            return replace(PolicyTable.from_table(table, card), label=self.label)
        return self

    def capped(self, max_output_tokens: int) -> PolicyTable:
        """Return the policy with this cap on uncapped answers, if it knows caps and has none."""
        if getattr(self.config, "max_output_tokens", max_output_tokens) is not None:
            return self
        return self.with_fields(self.label, max_output_tokens=max_output_tokens)

    def build(self, kv: KVConfig, trace: Trace) -> Policy:
        """Build a fresh scheduler for one run of a trace."""
        policy: Policy = self.config.build(kv, trace)
        return policy

    def with_fields(self, label: str, **changes: Any) -> PolicyTable:
        """Return the policy with other fields, under another label."""
        chosen = self.chosen - changes.keys()
        return replace(self, label=label, config=replace(self.config, **changes), chosen=chosen)

    def to_dict(self, chosen: bool = True) -> dict[str, Any]:
        """Return the table as TOML or JSON has it; on request without limits the GPU chose."""
        left_out = frozenset() if chosen else self.chosen
        names = [entry.name for entry in fields(self.config) if entry.name not in left_out]
        own = {name: getattr(self.config, name) for name in names}
        own = own["fields"] if ":" in self.name else own
        label = {} if self.label == self.name else {"label": self.label}
        return {
            "name": self.name,
            **label,
            **{key: value for key, value in own.items() if value is not None},
        }


def _limits(card: GPUTable) -> dict[str, int]:
    """Limits that vLLM chooses by the GPU."""
    return {
        "max_num_seqs": default_max_num_seqs(card.name),
        "max_num_batched_tokens": default_max_num_batched_tokens(card.name),
    }


def _config(name: str, table: Mapping[str, Any]) -> Any:
    """Return the policy's own settings; a wrong name or value is one sentence."""
    try:
        return policy_config(name, **table)
    except ValueError as error:
        said = str(error)
        raise ValueError(
            said if said.startswith("[policy]") else f"[policy] name: {said}"
        ) from error


def parse_policy(text: str, what: str = "--policy") -> dict[str, Any]:
    """Read a policy from a flag: its name, fields after commas; messages call it `what`.

    Examples
    --------
    >>> parse_policy("static,batch_size=16,finished_rows=skip")
    {'name': 'static', 'batch_size': 16, 'finished_rows': 'skip'}
    """
    return parse_named(text, what, "static,batch_size=16")


def policy_tables(policies: object) -> list[Any]:
    """Return what Python may give as policies as tables [policy]: names or tables, or one of them.

    Raises ValueError if it is nothing of the kind.

    >>> policy_tables("vllm"), policy_tables(["static,batch_size=8", {"name": "vllm"}])
    ([{'name': 'vllm'}], [{'name': 'static', 'batch_size': 8}, {'name': 'vllm'}])
    """
    given = [policies] if isinstance(policies, str | Mapping) else policies
    if not isinstance(given, Sequence):
        raise ValueError(
            f"policies is {policies!r}; it must be names or tables, as in ['static', 'vllm']"
        )
    return [
        parse_policy(policy, "policy") if isinstance(policy, str) else policy for policy in given
    ]


def parse_policies(
    document: Document, card: GPUTable, measured: Mapping[str, int] | None = None
) -> tuple[PolicyTable, ...]:
    """Build a document's policies, each with its own label; the defaults if it names none."""
    given = document.data.get("policy", list(DEFAULT_POLICIES))
    policies = []
    for index, table in enumerate(given if isinstance(given, list) else [given]):
        with document.blame("policy", index):
            named = {"name": table} if isinstance(table, str) else table
            if not isinstance(named, Mapping):
                raise ValueError(
                    f"policy = {table!r}: it must be a table, [policy], or several, [[policy]]"
                )
            policies.append(PolicyTable.from_table(named, card, measured))
    if not policies:
        raise ValueError("policy = []: name at least one")
    return label_policies(policies)


def default_lookahead(
    policies: Sequence[PolicyTable], host: Engine | None, measured: int | None
) -> int:
    """Return the lookahead of a configuration that gives none.

    The engine's, else that of the server that the step time was measured on, else 1 if `vllm` is
    among the policies, else 0.
    """
    ahead: int | None = None if host is None else host.lookahead
    if ahead is None:
        ahead = measured
    return int(any(policy.name == "vllm" for policy in policies)) if ahead is None else ahead


def label_policies(policies: Sequence[PolicyTable]) -> tuple[PolicyTable, ...]:
    """Return policies with own labels: by the first field that differs, else by number."""
    counts = Counter(policy.label for policy in policies)
    labelled = tuple(
        replace(policy, label=_apart(policy, index, policies))
        if counts[policy.label] > 1
        else policy
        for index, policy in enumerate(policies)
    )
    label, count = Counter(policy.label for policy in labelled).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"[policy] label = {label!r}: {count} policies would have it; give each a label of "
            f"its own"
        )
    return labelled


def _apart(policy: PolicyTable, index: int, policies: Sequence[PolicyTable]) -> str:
    same = [other for other in policies if other.label == policy.label]
    for name in ("name", *(entry.name for entry in fields(policy.config))):
        values = [str(getattr(other.config, name, None)) for other in same]
        if len(set(values)) == len(same):
            return f"{policy.label} ({name} {str(getattr(policy.config, name)).lower()})"
    return f"{policy.label} ({1 + sum(other.label == policy.label for other in policies[:index])})"
