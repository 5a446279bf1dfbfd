"""Table [cluster]: servers behind a router, alike, of several kinds, or prefill apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.cluster.registry import router_name
from busdoor.config.policy import PolicyTable
from busdoor.config.server_tables import GPUTable, KVTable, without_engine
from busdoor.core.units import STRICT, parse_seconds
from busdoor.step_time import StepTime

RouterTable = str | Mapping[str, Any]
ROLES = ("prefill", "decode")
OF_ROLES = ("decode_router", "link_bytes_per_s", "link_latency_s", "kv_bytes_per_token")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PoolTable:
    """[[cluster.pool]]: replicas that are alike. Its tables change single keys of those outside.

    Parameters
    ----------
    replicas : int
        How many.
    role : {"prefill", "decode"}, optional
        Which part of a request they do; both by default.
    weight : float
        Share of the load that each can take, relative to the others, for routers that heed weights.
    kv : KVTable
        KV memory of each, where it differs from [kv].
    gpu : GPUTable
        GPU and model of each, where they differ from [gpu].
    step_time : StepTime
        Step time of each, where it differs from [step_time].
    policy : dict
        Fields of [policy] that differ here, or another policy with its `name`.
    measured : dict
        Limits of the scheduler that its step time was measured with, for policies that set none;
        its calibration's.
    """

    kv: KVTable
    gpu: GPUTable
    step_time: StepTime
    replicas: PositiveInt = 1
    role: Literal["prefill", "decode"] | None = None
    weight: PositiveFloat = 1.0
    policy: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, PositiveInt] = field(default_factory=dict)

    @property
    def machine(self) -> str:
        """What one of its GPUs is called; a calibration stands for what it was measured on."""
        return getattr(self.step_time, "calibration", "") or self.gpu.name.name.upper()

    @property
    def num_gpus(self) -> int:
        """GPUs of one of its servers."""
        return self.gpu.tp * self.step_time.num_groups

    def policy_of(self, policy: PolicyTable) -> PolicyTable:
        """Return the policy as it runs here."""
        if "name" in self.policy:
            return PolicyTable.from_table(self.policy, self.gpu, self.measured)
        return policy.on(self.gpu, self.policy, self.measured)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON would hold it, its server spelt out."""
        role = {} if self.role is None else {"role": self.role}
        kv = {key: value for key, value in asdict(self.kv).items() if value is not None}
        server = {
            "kv": kv,
            "gpu": self.gpu.to_dict(),
            "step_time": without_engine(self.step_time.describe()),
        }
        policy = {"policy": dict(self.policy)} | (
            {"measured": dict(self.measured)} if self.measured else {}
        )
        return {"replicas": self.replicas, **role, "weight": self.weight, **server, **policy}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterTable:
    """[cluster]: servers behind a router.

    Parameters
    ----------
    pools : tuple of PoolTable
        The servers, in order of their numbers.
    replicas : int, optional
        How many there are of the one server that the other tables describe; None where there are
        [[cluster.pool]].
    router : str or table
        Name of a router, or a table with its `name` and fields.
    decode_router : str or table, optional
        Of the decode pools; by default as the prefill pools' `router`.
    link_bytes_per_s : float, optional
        Bytes per second of each server's link, over which prefill servers send KV to decode
        servers.
    link_latency_s : float or str
        Seconds that a transfer takes beside its bytes.
    kv_bytes_per_token : float, optional
        Bytes of a token's keys and values; by default those of the model of [gpu].
    """

    pools: tuple[PoolTable, ...]
    replicas: PositiveInt | None = None
    router: RouterTable = "least_outstanding"
    decode_router: RouterTable | None = None
    link_bytes_per_s: PositiveFloat | None = None
    link_latency_s: Annotated[NonNegativeFloat, BeforeValidator(parse_seconds)] = 0.0
    kv_bytes_per_token: NonNegativeFloat | None = None

    @property
    def num_replicas(self) -> int:
        """Servers in all pools."""
        return sum(pool.replicas for pool in self.pools)

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode run on different servers."""
        return self.pools[0].role is not None

    @property
    def routers(self) -> str:
        """Names of its routers."""
        names = (
            [self.router, self.decode_router or self.router]
            if self.disaggregated
            else [self.router]
        )
        return " and ".join(dict.fromkeys(map(router_name, names)))

    @property
    def hardware(self) -> str:
        """Its servers in short, as in "2 × h200 + 4 × l40s"."""
        return " + ".join(
            f"{pool.replicas} × "
            f"{pool.gpu.hardware if pool.gpu.tp == 1 else f'({pool.gpu.hardware})'}"
            + (f" {pool.role}" if pool.role else "")
            for pool in self.pools
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON would hold it."""
        plain = ("replicas", "router", *OF_ROLES)
        said = {key: value for key in plain if (value := getattr(self, key)) is not None}
        if not self.disaggregated:
            said.pop("link_latency_s")
        if self.replicas is not None:
            return said
        return said | {"pool": [pool.to_dict() for pool in self.pools]}
