"""Reading the table [cluster], and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from busdoor.catalog import Engine
from busdoor.cluster.registry import as_router
from busdoor.config.cluster import OF_ROLES, ROLES, ClusterTable, PoolTable
from busdoor.config.from_calibration import LIMITS, measured_limits
from busdoor.config.policy import PolicyTable
from busdoor.config.scaled import with_scaled
from busdoor.config.server import ServerTables, parse_server, table_of
from busdoor.core.registry import checked
from busdoor.core.toml import Document
from busdoor.core.units import reject_unknown
from busdoor.step_time import RooflineStepTime

_SERVER = ("kv", "gpu", "step_time")


def parse_cluster(
    document: Document,
    base: ServerTables,
    policies: Sequence[PolicyTable],
    host: Engine | None,
    folder: Path,
) -> ClusterTable | None:
    """Build the table [cluster] of a document, if it has one.

    `base` is the one server that its other tables describe. Raises ValueError: a sentence with the
    table, the key, the value and what would be right.
    """
    if "cluster" not in document.data:
        return None
    with document.blame("cluster"):
        table = table_of(document.data, "cluster")
        own = {key for key in ClusterTable.__dataclass_fields__ if key != "pools"}
        reject_unknown("[cluster]", table, own | {"pool"})
        given = _pool_tables(table)
        _check_routers(table)
    pools = [
        _pool(document, index, pool, base, policies, host, folder)
        for index, pool in enumerate(given)
    ]
    with document.blame("cluster"):
        if not pools:
            checked(PoolTable, {**base._asdict(), "replicas": table["replicas"]}, "[cluster]")
            pools = [PoolTable(**base._asdict(), replicas=table["replicas"])]
        _check_roles(pools, table)
        _check_models(pools)
        return checked(
            ClusterTable,
            {**{key: table[key] for key in own & table.keys()}, "pools": pools},
            "[cluster]",
        )


def has_pools(data: Mapping[str, Any]) -> bool:
    """Whether a configuration describes each server, so other tables are but defaults."""
    cluster = data.get("cluster")
    return isinstance(cluster, Mapping) and bool(cluster.get("pool"))


def _pool_tables(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    pools = table.get("pool", [])
    if not isinstance(pools, list) or not all(isinstance(pool, Mapping) for pool in pools):
        raise ValueError(f"[cluster] pool = {pools!r}: it must be tables, [[cluster.pool]]")
    if pools and "replicas" in table:
        raise ValueError(
            f"[cluster] replicas = {table['replicas']!r}: each [[cluster.pool]] says how many it "
            f"has; leave it out here"
        )
    if not pools and "replicas" not in table:
        raise ValueError(
            "[cluster] has no servers; say replicas = 4 (--replicas 4), or give it [[cluster.pool]]"
        )
    return pools


def _check_routers(table: Mapping[str, Any]) -> None:
    for key in ("router", "decode_router"):
        router = table.get(key, "round_robin")
        try:
            if not isinstance(router, str | Mapping):
                raise ValueError(f"{router!r} must be a name, or a table with a name")
            as_router(router)
        except ValueError as error:
            raise ValueError(
                f"[cluster] {key}: {str(error).removeprefix('[router]').lstrip(': ')}"
            ) from error


def _pool(
    document: Document,
    index: int,
    table: Mapping[str, Any],
    base: ServerTables,
    policies: Sequence[PolicyTable],
    host: Engine | None,
    folder: Path,
) -> PoolTable:
    """Build one pool: the tables outside, with its own keys put over them."""
    where = f"[[cluster.pool]] {index + 1}"
    with document.blame("cluster.pool", index), _within(where):
        reject_unknown("", table, PoolTable.__dataclass_fields__)
        own = {name: table_of(table, name) for name in (*_SERVER, "policy", "measured")}
        reject_unknown("measured", own["measured"], LIMITS)
        _check_step_time(own, base)
        merged = {name: _over(name, table_of(document.data, name), own[name]) for name in _SERVER}
        merged = with_scaled(merged, folder)
        server = parse_server(merged, folder, lambda name: nullcontext(), host=host)
        plain = {key: table[key] for key in ("replicas", "role", "weight") if key in table}
        limits = {} if host is None else host.limits
        plain["measured"] = own["measured"] or limits | measured_limits(merged["step_time"], folder)
        pool = checked(PoolTable, {**server._asdict(), "policy": own["policy"], **plain}, where)
        _check_policy(pool, policies)
    return pool


@contextmanager
def _within(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith(where) else f"{where}: {said}") from error


def _over(name: str, outside: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Put a pool's keys over a table: another step time drops all, another GPU its price."""
    if name == "step_time" and "name" in own:
        return dict(own)
    dropped = {"price_per_hour"} if name == "gpu" and "name" in own else set()
    return {key: value for key, value in outside.items() if key not in dropped} | dict(own)


def _check_step_time(own: Mapping[str, Mapping[str, Any]], base: ServerTables) -> None:
    other_gpu = own["gpu"].keys() & {"name", "model", "tp"} and not own["step_time"]
    if other_gpu and not isinstance(base.step_time, RooflineStepTime):
        name = type(base.step_time).__name__
        raise ValueError(
            f"gpu = {dict(own['gpu'])!r}: the {name} of [step_time] is another GPU's; give the "
            f"pool a step_time too"
        )


def _check_policy(pool: PoolTable, policies: Sequence[PolicyTable]) -> None:
    if "name" not in pool.policy and not any(":" in policy.name for policy in policies):
        reject_unknown(
            "[policy]", pool.policy, set().union(*(policy.field_names for policy in policies))
        )
    for policy in policies:
        pool.policy_of(policy)


def _check_roles(pools: Sequence[PoolTable], table: Mapping[str, Any]) -> None:
    roles = [pool.role for pool in pools]
    if not any(roles):
        for key in table.keys() & set(OF_ROLES):
            raise ValueError(f'[cluster] {key}: it is for pools with role = "prefill" and "decode"')
        return
    for role, other in (ROLES, ROLES[::-1]):
        if role not in roles:
            raise ValueError(
                f"[cluster] has a {other} pool but no {role} pool; give it a pool with role = "
                f'"{role}"'
            )
    if None in roles:
        number = roles.index(None) + 1
        raise ValueError(
            f'[[cluster.pool]] {number} has no role, but others have; give it "prefill" or "decode"'
        )
    if "link_bytes_per_s" not in table:
        raise ValueError(
            "[cluster] link_bytes_per_s is missing: bytes per second at which a prefill server "
            "sends KV, as in link_bytes_per_s = 50e9 for a link of 400 Gbit/s"
        )


def _check_models(pools: Sequence[PoolTable]) -> None:
    models = list(dict.fromkeys(pool.gpu.model.name for pool in pools))
    if len(models) > 1:
        raise ValueError(
            f"[cluster] has pools with {' and '.join(models)}; all replicas have to serve the "
            f"same model"
        )
