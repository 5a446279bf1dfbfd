"""What the commands share: from flags to a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from busdoor.cli.reading import FileFlags, tell

if TYPE_CHECKING:
    from busdoor.config import Config
    from busdoor.core.toml import Document

Rate = Annotated[float | None, Parameter(name=("--rate", "--request-rate"))]


@Parameter(name="*")
@dataclass(frozen=True)
class ParallelFlags:
    """How many GPUs a server has, and what they share.

    Parameters
    ----------
    tp
        GPUs that share each layer.
    pp
        Stages of layers, each of tp GPUs; with --step-time operators.
    dp
        Groups of tp GPUs that share the requests; with --step-time operators.
    ep
        Groups that share the experts, of tp x dp GPUs in all; with --step-time operators.
    """

    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None


ONE_GPU = ParallelFlags()
"""No flag given: one GPU, unless the file says otherwise."""


def overrides(
    *,
    workload: str | None = None,
    rate: float | None = None,
    num_requests: int | None = None,
    timeout: str | None = None,
    policy: list[str] | None = None,
    gpu: str | None = None,
    model: str | None = None,
    step_time: str | None = None,
    engine: str | None = None,
    parallel: ParallelFlags = ONE_GPU,
    replicas: int | None = None,
    router: str | None = None,
    reading: FileFlags | None = None,
    **plain: Any,
) -> dict[str, Any]:
    """Turn flags into the tables of a configuration; what was not given is absent.

    Examples
    --------
    >>> overrides(rate=4.0, policy=["static,batch_size=8", "vllm"], seed=1)
    {'workload': {'request_rate': 4.0}, 'policy': [{'name': 'static', 'batch_size': 8}, {'name': 'vllm'}], 'seed': 1}
    >>> overrides(replicas=4, router="prefix_affinity,min_match=0.5")
    {'cluster': {'replicas': 4, 'router': {'name': 'prefix_affinity', 'min_match': 0.5}}}
    >>> overrides(step_time="operators", parallel=ParallelFlags(tp=2, ep=2))
    {'gpu': {'tp': 2}, 'step_time': {'name': 'operators', 'ep': 2}}
    """
    from busdoor.comparison.api import workload_key
    from busdoor.config import parse_policy
    from busdoor.step_time import step_time_table

    arrivals: dict[str, Any] = {} if reading is None else reading.given()
    arrivals |= {"request_rate": rate, "num_requests": num_requests, "timeout_s": _number(timeout)}
    if workload is not None:
        arrivals[workload_key(workload)] = workload
    shares = {"pp": parallel.pp, "dp": parallel.dp, "ep": parallel.ep}
    tables: dict[str, Any] = {
        "workload": _given(arrivals),
        "policy": [parse_policy(text) for text in policy] if policy else None,
        "gpu": _given({"name": gpu, "model": model, "tp": parallel.tp}),
        "step_time": _given({**(step_time_table(step_time) if step_time else {}), **shares}),
        "engine": _given({"name": engine}),
        "cluster": _given({"replicas": replicas, "router": _router(router)}),
        **plain,
    }
    return {key: value for key, value in _given(tables).items() if value != {}}


def configured(config: Path | None, tables: Mapping[str, Any], defaults: Mapping[str, Any]) -> Config:
    """Read the configuration file, if there is one, and put the flags over it; what neither has is the default's."""
    from busdoor.cli.idle import refuse_idle_flags
    from busdoor.config import override, parse_config

    document = read_document(config)
    for key, value in defaults.items():
        if key not in document.data and not (key == "workload" and {"name", "path"} & set(tables.get("workload", {}))):
            document.data[key] = value
    merged = override(document, tables)
    settled = parse_config(merged)
    refuse_idle_flags(tables, merged.data, settled)
    tell(settled.workload.notes)
    tell(dict.fromkeys(note for pool in settled.pools for note in pool.step_time.notes))
    return settled


def read_document(config: Path | None) -> Document:
    """Read a configuration file, its paths absolute; without a file, an empty one."""
    from busdoor.core.toml import Document, read_toml

    if config is None:
        return Document()
    document = read_toml(config)
    return replace(document, data=absolute(document.data, config.parent))


def names_policies(config: Path | None) -> bool:
    """Whether a configuration file says which policies it wants."""
    from busdoor.core.toml import read_toml

    return config is not None and "policy" in read_toml(config).data


def absolute(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the relative paths of a file's [workload], [step_time]s and [gpu]s from its folder; a flag's start here.

    A step time's may be the name of a calibration instead, a GPU's model that of the catalogue; neither has a folder.
    """
    from busdoor.catalog import has_config
    from busdoor.step_time import step_time_table

    tables = dict(data)
    cluster = data.get("cluster")
    if isinstance(cluster, Mapping) and isinstance(cluster.get("pool"), list):
        pools = [absolute(pool, folder) if isinstance(pool, Mapping) else pool for pool in cluster["pool"]]
        tables["cluster"] = {**cluster, "pool": pools}
    for name in ("workload", "step_time"):
        table = step_time_table(data.get(name)) if name == "step_time" else data.get(name)
        if isinstance(table, Mapping) and isinstance(table.get("path"), str):
            path = folder / Path(table["path"]).expanduser()
            if name == "workload" or path.is_file():
                tables[name] = {**table, "path": str(path)}
    gpu = data.get("gpu")
    if isinstance(gpu, Mapping) and has_config(gpu.get("model"), folder):
        tables["gpu"] = {**gpu, "model": str(folder / Path(gpu["model"]).expanduser())}
    return tables


def _router(text: str | None) -> str | dict[str, Any] | None:
    """Read a router: its name, or a table where it has fields."""
    from busdoor.core.toml import parse_named

    if text is None or "," not in text:
        return text
    return parse_named(text, "--router", "prefix_affinity,min_match=0.5")


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _number(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
