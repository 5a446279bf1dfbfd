"""What a server is made of: its memory, its GPU and its step time, checked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from busdoor.catalog import DEFAULT_ENGINE, Engine, config_path, engine
from busdoor.config.from_calibration import measured_server, with_memory
from busdoor.config.server_tables import GPUTable, KVTable
from busdoor.core.registry import checked
from busdoor.core.units import reject_unknown
from busdoor.step_time import StepTime, make_step_time, step_time_class, step_time_table

# puts file and line of a table before what is wrong with it
Blame = Callable[[str], AbstractContextManager[None]]

# step times to which the engine adds its host's
PREDICTED = frozenset({"roofline", "operators", "scaled_roofline"})


class ServerTables(NamedTuple):
    """The tables [kv], [gpu] and [step_time] of one server."""

    kv: KVTable
    gpu: GPUTable
    step_time: StepTime


def parse_server(
    data: Mapping[str, Any],
    folder: Path,
    blame: Blame,
    *,
    host: Engine | None = None,
    runs: bool = True,
) -> ServerTables:
    """Build a server's tables from a configuration's, with relative paths from `folder` on.

    Without `runs` there is no such server: the tables are but defaults of others, so that its model
    need not fit and a calibration does not bring its memory along. Raises ValueError: a sentence
    with the table (`blame` says where it is), the key, the value and what would be right.
    """
    with blame("kv"):
        measured = measured_server(table_of(data, "step_time"), folder) if runs else {}
        kv = _strict(KVTable, with_memory(table_of(data, "kv"), measured), "[kv]")
    with blame("gpu"):
        own = _with_path(table_of(data, "gpu"), folder)
        card = with_engine(_strict(GPUTable, own, "[gpu]"), own, host)
        if runs and kv.num_blocks is None:
            card.num_blocks(kv.block_size)  # says so here if the model does not fit
    with blame("step_time"):
        step_time = _step_time(table_of(data, "step_time"), card, host, folder)
    return ServerTables(kv, card, step_time)


def parse_engine(data: Mapping[str, Any]) -> Engine | None:
    """Return the engine of a configuration.

    Where it names none, a step time that is predicted has the default one; a step time that was
    measured or is made up contains the host's time already, and has none.

    >>> parse_engine({}).name, parse_engine({"engine": {"name": "busdoor"}}).name
    ('vllm', 'busdoor')
    >>> parse_engine({"step_time": {"name": "linear", "base_s": 1.0}}) is None
    True
    """
    if "engine" in data:
        given = data["engine"]
        if isinstance(given, Mapping) and "name" not in given:
            raise ValueError(
                "[engine] has no name; give it one of the catalogue's, or a name of your own"
            )
        return engine(given)
    cluster = data.get("cluster")
    pools = cluster.get("pool") if isinstance(cluster, Mapping) else None
    servers = (
        [pool for pool in pools if isinstance(pool, Mapping)] if isinstance(pools, list) else []
    )
    tables = [server if "step_time" in server else data for server in servers] or [data]
    names = {step_time_fields(table_of(table, "step_time"))[0] for table in tables}
    return engine(DEFAULT_ENGINE) if PREDICTED & names else None


def with_engine(card: GPUTable, given: Mapping[str, Any], host: Engine | None) -> GPUTable:
    """Return a table [gpu] with the engine's share of the memory and format of the KV cache.

    Only where what was `given` has none of its own.

    >>> with_engine(GPUTable(), {}, engine("vllm")).gpu_memory_utilization
    0.92
    >>> fp8 = GPUTable(weight_dtype="fp8")
    >>> with_engine(fp8, {}, engine("trtllm")).kv_dtype, with_engine(fp8, {}, engine("vllm")).kv_dtype
    ('fp8', None)
    """
    if host is None:
        return card
    changes: dict[str, Any] = {}
    share = host.gpu_memory_utilization
    if share is not None and "gpu_memory_utilization" not in given:
        taken = card.model.weight_bytes(card.weight_dtype) / card.tp / card.name.memory_bytes
        # a model that does not fit is refused later
        free = host.memory_share_of == "free" and taken < 1
        changes["gpu_memory_utilization"] = taken + share * (1 - taken) if free else share
    if host.fp8_kv_dtype is not None and card.weight_dtype == "fp8" and card.kv_dtype is None:
        changes["kv_dtype"] = host.fp8_kv_dtype
    return replace(card, **changes)


def _with_path(gpu: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return [gpu] with its model, if a file beside the configuration, found from anywhere."""
    path = config_path(gpu.get("model"), folder)
    return gpu if path is None else {**gpu, "model": path}


def table_of(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table of that name, empty if there is none; ValueError if it is something else.

    >>> table_of({"step_time": "vllm-cpu"}, "step_time")      # the name of a calibration stands for its table
    {'name': 'calibrated', 'path': 'vllm-cpu'}
    """
    table = data.get(name, {})
    if name == "step_time":
        table = step_time_table(table)
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} = {table!r}: it must be a table, [{name}]")
    return dict(table)


def _strict(cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
    reject_unknown(where, table, cls.__dataclass_fields__)
    return checked(cls, table, where)


def _step_time(
    table: Mapping[str, Any], card: GPUTable, host: Engine | None, folder: Path
) -> StepTime:
    name, fields = step_time_fields(table)
    # else the name of a calibration
    if isinstance(fields.get("path"), str) and (folder / fields["path"]).is_file():
        fields["path"] = str(folder / fields["path"])
    if isinstance(fields.get("profile"), str) and (folder / fields["profile"]).is_dir():
        fields["profile"] = str(folder / fields["profile"])
    if name not in PREDICTED:
        return make_step_time(name, **fields)
    if "engine" in fields:
        raise ValueError(
            f"[step_time] engine = {fields['engine']!r}: it belongs into [engine] name"
        )
    shared = {} if host is None else {"engine": host}
    return make_step_time(name, **{**card.roofline(), **shared, **fields})


def step_time_fields(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the model that a [step_time] names, and its fields; else raise ValueError."""
    fields = dict(table)
    name = fields.pop("name", "calibrated" if "path" in fields else "roofline")
    if not isinstance(name, str):
        raise ValueError(f"[step_time] name = {name!r}: it must be a string")
    try:
        cls = step_time_class(name)
    except ValueError as error:
        raise ValueError(f"[step_time] name: {error}") from error
    known = getattr(cls, "__dataclass_fields__", None)
    if known is not None:
        reject_unknown("[step_time]", fields, known)
    return name, fields
