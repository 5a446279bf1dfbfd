"""What is searched: servers, the settings of each, and how many of them behind which router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import product
from typing import Any, NamedTuple

from pydantic.dataclasses import dataclass

from busdoor.config import Config
from busdoor.config.merge import override
from busdoor.config.recommend import LINK_BYTES_PER_S, RecommendTable
from busdoor.core.toml import Document


class Setup(NamedTuple):
    """Fields of the policy that differ from the engine's, the router, and servers for prefill."""

    fields: tuple[tuple[str, Any], ...] = ()
    router: str = "least_outstanding"
    num_prefill: int = 0

    def __str__(self) -> str:
        """Return what is set, in words."""
        own = [f"{key} {str(value).lower()}" for key, value in self.fields]
        apart = [f"{self.num_prefill} for prefill"] if self.num_prefill else []
        return ", ".join([*own, *apart]) or "the engine's settings"


@dataclass(frozen=True, config={"arbitrary_types_allowed": True})
class Server:
    """GPUs that hold the model once.

    Parameters
    ----------
    tables : dict
        Those of one server's configuration.
    config : Config
        The same, read.
    """

    tables: Mapping[str, Any] = field(repr=False)
    config: Config = field(repr=False)

    @property
    def name(self) -> str:
        """The GPUs, as in "2 × h100"."""
        return self.config.hardware

    @property
    def price_per_hour(self) -> float:
        """Of all its GPUs."""
        return self.config.price_per_hour or 0.0

    def setups(self, axes: RecommendTable, shares_blocks: bool) -> Iterator[Setup]:
        """Yield settings that the policy takes, its own first; each differs from all before."""
        policy = self.config.policies[0]
        known = policy.field_names & set(_FIELDS)
        names = [name for name in _FIELDS if name in known]
        own = {name: getattr(policy.config, name) for name in names}
        values = [
            (own[name],)
            if name == "prefix_caching" and not shares_blocks
            else tuple(dict.fromkeys((own[name], *getattr(axes, name))))
            for name in names
        ]
        for combination in product(*values):
            changed = {
                name: value
                for name, value in zip(names, combination, strict=True)
                if value != own[name]
            }
            try:
                policy.with_fields(policy.label, **changed)
            except ValueError:  # a budget below the slots
                continue
            yield Setup(tuple(changed.items()), axes.router[0])

    def many(self, replicas: int, setup: Setup, link_bytes_per_s: float) -> dict[str, Any]:
        """Return the configuration of so many of them."""
        policy = self.config.policies[0].to_dict() | dict(setup.fields)
        tables = {**self.tables, "policy": [policy]}
        if setup.num_prefill:
            counts = {"prefill": setup.num_prefill, "decode": replicas - setup.num_prefill}
            pools = [{"role": role, "replicas": count} for role, count in counts.items()]
            shared = {"router": setup.router, "link_bytes_per_s": link_bytes_per_s}
            return tables | {"cluster": {**shared, "pool": pools}}
        if replicas == 1:
            return tables
        return tables | {"cluster": {"replicas": replicas, "router": setup.router}}


_FIELDS = ("max_num_seqs", "max_num_batched_tokens", "chunked_prefill", "prefix_caching")


class Candidate(NamedTuple):
    """So many servers with a setup."""

    server: Server
    replicas: int
    setup: Setup
    link_bytes_per_s: float = LINK_BYTES_PER_S

    @property
    def cost_per_hour(self) -> float:
        """Price of all GPUs."""
        return self.replicas * self.server.price_per_hour

    @property
    def num_gpus(self) -> int:
        """GPUs of all servers."""
        return self.replicas * self.server.config.num_gpus

    @property
    def tables(self) -> dict[str, Any]:
        """The configuration."""
        return self.server.many(self.replicas, self.setup, self.link_bytes_per_s)

    @property
    def title(self) -> str:
        """Servers in short, as in "3 × (2 × h100)"."""
        name = self.server.name
        return f"{self.replicas} × {f'({name})' if '×' in name else name}"


class Place(NamedTuple):
    """So many of a server, and what they cost; places are tried in this order."""

    cost_per_hour: float
    order: int
    replicas: int


def servers(
    document: Document, cards: Sequence[Mapping[str, Any]], axes: RecommendTable
) -> list[Server | str]:
    """Return a server for every GPU and number of GPUs, or why there is none.

    Parameters
    ----------
    document : Document
        The tables that all share.
    cards : list of mapping
        Tables [gpu] with name and price; a `tp` of their own stands for the axis.
    axes : RecommendTable
        Has `tp`.
    """
    found: list[Server | str] = []
    for card in cards:
        for tp in [card["tp"]] if "tp" in card else axes.tp:
            own = override(document, {"gpu": {**card, "tp": tp}}).data
            try:
                config = Config.from_table(own)
                _check(config)
                found.append(Server(own, config))
            except ValueError as error:
                found.append(str(error))
    return found


def _check(config: Config) -> None:
    """Raise ValueError where the memory holds no request of the longest kind."""
    longest, size = config.kv.max_model_len or 1, config.kv.block_size
    tokens = (config.kv.num_blocks or config.gpu.num_blocks(size)) * size
    if tokens < longest:
        raise ValueError(
            f"{config.hardware}: the KV cache holds {tokens:,} tokens, less than a request of "
            f"{longest:,}"
        )
