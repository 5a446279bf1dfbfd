"""The whole configuration: one schema for all commands, from TOML, flags or keywords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog import Engine
from busdoor.config.cluster import ClusterTable, PoolTable
from busdoor.config.cluster_parser import has_pools, parse_cluster
from busdoor.config.from_calibration import measured_limits, measured_lookahead
from busdoor.config.merge import override
from busdoor.config.policy import PolicyTable, default_lookahead, parse_policies
from busdoor.config.scaled import with_scaled
from busdoor.config.server import parse_engine, parse_server, table_of
from busdoor.config.server_tables import GPUTable, KVTable, engine_table, without_engine
from busdoor.config.tables import PLAIN_KEYS, reject_unknown_tables, strict_json
from busdoor.config.workload import WorkloadTable
from busdoor.core.registry import checked, in_one_sentence
from busdoor.core.toml import Document, read_toml
from busdoor.core.units import STRICT
from busdoor.metrics.slo import SLO
from busdoor.step_time import StepTime
from busdoor_workloads import given


@in_one_sentence
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """What to run: everything that a stranger needs to repeat it.

    Parameters
    ----------
    workload : WorkloadTable
        Who arrives.
    policies : tuple of PolicyTable
        Who is compared; the first is what the others are measured against.
    kv : KVTable
        Memory for keys and values.
    gpu : GPUTable
        What runs which model.
    step_time : StepTime
        Seconds of an iteration; by default the roofline of `gpu`.
    engine : Engine, optional
        Whose host and front end it is; none where the step time contains them.
    slo : SLO
        What is promised.
    cluster : ClusterTable, optional
        Several servers behind a router; one server by default.
    seed : int
        Seed of every random stream.
    replications : int
        Draws of the workload.
    lookahead : {0, 1}
        When an iteration is decided: at the end of the one before, or while it still runs. One
        value for all policies. By default the engine's, else what a calibration was measured with,
        else 1 if `vllm` is among the policies and 0 otherwise.

    Examples
    --------
    >>> config = Config.from_table({"workload": {"name": "azure-conv"}, "policy": {"name": "vllm"}, "seed": 3})
    >>> config.seed, config.policies[0].label, config.step_time.describe()["name"]
    (3, 'vllm', 'roofline')
    >>> Config.from_table(config.to_dict()) == config
    True
    >>> Config.from_table({"polcy": {"name": "vllm"}})
    Traceback (most recent call last):
    ValueError: [polcy]: unknown; did you mean [policy]?
    """

    workload: WorkloadTable
    policies: tuple[PolicyTable, ...]
    step_time: StepTime
    kv: KVTable = field(default_factory=KVTable)
    gpu: GPUTable = field(default_factory=GPUTable)
    engine: Engine | None = None
    slo: SLO = field(default_factory=SLO)
    cluster: ClusterTable | None = None
    seed: NonNegativeInt = 0
    replications: PositiveInt = 5
    lookahead: Literal[0, 1] = 0

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, exists: bool = True) -> Config:
        """Build it from nested tables, as TOML gives them; what is absent has its default.

        Parameters
        ----------
        table : mapping
            The tables.
        exists : bool
            Whether a trace file must be there; not for reading a study that has been run.

        Raises
        ------
        ValueError
            One sentence that names the table, the key, the value and what would be right.
        """
        return parse_config(Document(given.table("the configuration", table)), exists=exists)

    @property
    def pools(self) -> tuple[PoolTable, ...]:
        """The servers by kind; without a [cluster] the one that there is."""
        if self.cluster is not None:
            return self.cluster.pools
        return (PoolTable(kv=self.kv, gpu=self.gpu, step_time=self.step_time),)

    @property
    def num_gpus(self) -> int:
        """GPUs of all servers."""
        return sum(pool.replicas * pool.num_gpus for pool in self.pools)

    @property
    def num_units(self) -> int:
        """Equal parts of which more or fewer could be bought: like servers, else the cluster."""
        return (self.cluster.replicas if self.cluster else None) or 1

    @property
    def price_per_hour(self) -> float | None:
        """Price of all GPUs an hour; None where that of any is not known."""
        prices = [pool.gpu.price_per_hour for pool in self.pools]
        if None in prices:
            return None
        return sum(
            pool.replicas * pool.num_gpus * (pool.gpu.price_per_hour or 0) for pool in self.pools
        )

    @property
    def hardware(self) -> str:
        """All servers in short, as in "4 × h100"."""
        return self.gpu.hardware if self.cluster is None else self.cluster.hardware

    @property
    def where(self) -> str:
        """All servers and their model in a few words; a calibration stands for both."""
        names = {getattr(pool.step_time, "calibration", "") for pool in self.pools}
        if all(names):
            count = f"{self.num_units} × " if self.num_units > 1 else ""
            return f"{count}{' + '.join(sorted(names))} (calibrated)"
        return f"{self.hardware} with {self.gpu.model.name}"

    @property
    def prediction(self) -> str:
        """Which engine and lookahead the answers are for, and their error where checked."""
        ahead = f"lookahead {self.lookahead}"
        if self.engine is None:
            return ahead
        scaled = {getattr(pool.step_time, "fitted_to", "") for pool in self.pools} - {""}
        if scaled:
            return (
                f"engine {self.engine.title}, {ahead}; roofline scaled by "
                f"{', '.join(sorted(scaled))}"
            )
        kinds = {
            (
                str(pool.step_time.describe()["name"]),
                pool.gpu.tp,
                pool.gpu.model.expert_dtype or pool.gpu.weight_dtype,
            )
            for pool in self.pools
        }
        found = {self.engine.accuracy(tp, dtype or "bf16", name) for name, tp, dtype in kinds}
        estimated = self.engine.left_out if self.kv.num_blocks is None else ""
        parts = (f"engine {self.engine.title}, {ahead}", estimated, " or ".join(sorted(found)))
        return "; ".join(part for part in parts if part)

    def with_policy(self, policy: PolicyTable) -> Config:
        """Return the configuration with this policy alone."""
        return replace(self, policies=(policy,))

    def to_dict(self) -> dict[str, Any]:
        """Return tables that strict JSON can hold and `from_table` reads back the same."""
        # In a cluster every pool's GPU chooses for itself what is not set.
        policies = [policy.to_dict(chosen=self.cluster is None) for policy in self.policies]
        tables = {
            "workload": self.workload.to_dict(),
            "policy": policies,
            "kv": {key: value for key, value in asdict(self.kv).items() if value is not None},
            "gpu": self.gpu.to_dict(),
            "step_time": without_engine(self.step_time.describe()),
            **({} if self.engine is None else {"engine": engine_table(self.engine)}),
            "slo": self.slo.to_dict(),
            **({} if self.cluster is None else {"cluster": self.cluster.to_dict()}),
            **{key: getattr(self, key) for key in PLAIN_KEYS},
        }
        return cast(dict[str, Any], strict_json(tables))


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : str or Path
        TOML.
    overrides : mapping, optional
        Tables whose keys replace the file's, as flags do.

    Raises
    ------
    ValueError
        One sentence that begins with the file and the line.
    OSError
        If the file cannot be read.
    """
    document = read_toml(path)
    folder = Path(path).parent
    return parse_config(
        override(document, given.table("overrides", overrides or {}), folder), folder
    )


def parse_config(document: Document, folder: str | Path = ".", *, exists: bool = True) -> Config:
    """Build a configuration from a document, blaming its file and line for what is wrong.

    Parameters
    ----------
    document : Document
        The tables.
    folder : str or Path
        Where relative paths start.
    exists : bool
        Whether a trace file must be there.
    """
    with document.blame():
        reject_unknown_tables(document.data)
        table_of(document.data, "gpu")
    data = with_scaled(document.data, Path(folder))
    document = replace(document, data=data)
    with document.blame("workload"):
        workload = WorkloadTable.from_table(table_of(data, "workload"), folder, exists=exists)
    alone = not has_pools(data)
    with document.blame("engine" if "engine" in data else "step_time"):
        host = parse_engine(data)
    server = parse_server(data, Path(folder), document.blame, host=host, runs=alone)
    with document.blame("slo"):
        slo = SLO.from_table(table_of(data, "slo"))
    limits = {} if host is None else host.limits
    if alone:
        limits |= measured_limits(table_of(data, "step_time"), Path(folder))
    policies = parse_policies(document, server.gpu, limits)
    cluster = parse_cluster(document, server, policies, host, Path(folder))
    parts = {
        "workload": workload,
        "policies": policies,
        **server._asdict(),
        "engine": host,
        "slo": slo,
    }
    parts["cluster"] = cluster
    with document.blame():
        measured = measured_lookahead(table_of(data, "step_time"), Path(folder))
        plain = {"lookahead": default_lookahead(policies, host, measured)}
        plain |= {key: data[key] for key in PLAIN_KEYS if key in data}
        return checked(Config, {**parts, **plain}, "the configuration's")
