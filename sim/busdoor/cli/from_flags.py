"""From flags to the tables of a configuration, and to the configuration itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.cli.file_flags import FileFlags
from busdoor.cli.flags import values
from busdoor.cli.output import print_notes
from busdoor.core.units import number_or_text

if TYPE_CHECKING:
    from busdoor.config import Config
    from busdoor.core.toml import Document

# By flag: the table and the key that it sets, where they are not the flag's own name.
_SETS = {
    "rate": ("workload", "request_rate"),
    "num_requests": ("workload", "num_requests"),
    "timeout": ("workload", "timeout_s"),
    "gpu": ("gpu", "name"),
    "model": ("gpu", "model"),
    "engine": ("engine", "name"),
    "tp": ("gpu", "tp"),
    "pp": ("step_time", "pp"),
    "dp": ("step_time", "dp"),
    "ep": ("step_time", "ep"),
    "gpu_price": ("gpu", "price_per_hour"),
    "replicas": ("cluster", "replicas"),
    "router": ("cluster", "router"),
}


def overrides(*groups: Any, **own: Any) -> dict[str, Any]:
    """Return the tables of a configuration that flags set; a flag without a value sets nothing.

    `groups` are flags that several commands share, as classes of `busdoor.cli.flags` (the file of
    their `config` is read by `configured`), `own` a command's own.

    >>> overrides(rate=4.0, policy=["static,batch_size=8", "vllm"], seed=1)
    {'workload': {'request_rate': 4.0}, 'policy': [{'name': 'static', 'batch_size': 8}, {'name': 'vllm'}], 'seed': 1}
    >>> overrides(replicas=4, router="prefix_affinity,min_match=0.5")
    {'cluster': {'replicas': 4, 'router': {'name': 'prefix_affinity', 'min_match': 0.5}}}
    >>> from busdoor.cli.flags import ServerFlags
    >>> overrides(ServerFlags(step_time="operators", tp=2, ep=2))
    {'step_time': {'name': 'operators', 'ep': 2}, 'gpu': {'tp': 2}}
    """
    from busdoor.config.merge import workload_key

    tables: dict[str, Any] = {}
    for flag, value in {**values(*groups), **own}.items():
        if value in (None, []) or flag == "config":
            continue
        if isinstance(value, FileFlags):
            tables["workload"] = tables.get("workload", {}) | value.given()
        elif flag in _SETS or flag == "workload":
            table, key = _SETS.get(flag) or ("workload", workload_key(value))
            tables.setdefault(table, {})[key] = _parsed(flag, value)
        else:
            tables[flag] = _parsed(flag, value)
    return {name: table for name, table in tables.items() if table != {}}


def servers(cards: list[str] | None, tps: list[int] | None) -> list[dict[str, Any]]:
    """Return a table [gpu] for every GPU and number of GPUs that flags name; one without any.

    >>> servers(["l40s", "h100,price_per_hour=2.5"], [1])
    [{'name': 'l40s', 'tp': 1}, {'name': 'h100', 'price_per_hour': 2.5, 'tp': 1}]
    >>> servers(None, None)
    [{}]
    """
    from busdoor.core.toml import parse_named

    named = [parse_named(card, "--gpu", "h100,price_per_hour=2.5") for card in cards or []]
    shared = [{"tp": tp} for tp in dict.fromkeys(tps or [])]
    return [{**card, **tp} for card in named or [{}] for tp in shared or [{}]]


def _parsed(flag: str, value: Any) -> Any:
    """Return what a flag's text stands for in a table."""
    from busdoor.config import parse_policy
    from busdoor.core.toml import parse_named
    from busdoor.step_time import step_time_table

    if flag == "policy":
        return [parse_policy(text) for text in value]
    if flag == "step_time":
        return step_time_table(value)
    if flag == "router" and "," in value:
        return parse_named(value, "--router", "prefix_affinity,min_match=0.5")
    return number_or_text(value) if flag == "timeout" else value


def configured(
    config: Path | None, tables: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Config:
    """Read the configuration file, if any; flags override it, defaults fill the rest."""
    from busdoor.cli.idle import refuse_idle_flags
    from busdoor.config import override, parse_config

    document = read_document(config)
    for key, value in defaults.items():
        if key not in document.data and not (
            key == "workload" and {"name", "path"} & set(tables.get("workload", {}))
        ):
            document.data[key] = value
    merged = override(document, tables)
    settled = parse_config(merged)
    refuse_idle_flags(tables, merged.data, settled)
    print_notes(settled.workload.notes)
    print_notes(dict.fromkeys(note for pool in settled.pools for note in pool.step_time.notes))
    return settled


def read_document(config: Path | None) -> Document:
    """Read a configuration file, its paths absolute; without a file, an empty one."""
    from busdoor.core.toml import Document, read_toml

    if config is None:
        return Document()
    document = read_toml(config)
    return replace(document, data=absolute(document.data, config.parent))


def names_policies(config: Path | None) -> bool:
    """Return whether a configuration file chooses policies."""
    from busdoor.core.toml import read_toml

    return config is not None and "policy" in read_toml(config).data


def absolute(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a file's tables; [workload], [step_time], [gpu] paths are resolved in its folder.

    A step time's path may be the name of a calibration instead, and a GPU's model a name of the
    catalogue; these stay. Relative paths of flags start in the working folder.
    """
    from busdoor.catalog import has_config
    from busdoor.step_time import step_time_table

    tables = dict(data)
    cluster = data.get("cluster")
    if isinstance(cluster, Mapping) and isinstance(cluster.get("pool"), list):
        pools = [
            absolute(pool, folder) if isinstance(pool, Mapping) else pool
            for pool in cluster["pool"]
        ]
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
