"""The whole of a configuration: one schema for every command, read from TOML, flags or keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from math import isinf
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog import gpu, gpu_names, model, model_names
from busdoor.config.policy import PolicyTable, label_policies
from busdoor.config.tables import SLO, STRICT, GPUTable, KVTable, reject_unknown
from busdoor.config.toml import Document, read_toml
from busdoor.config.workload import WorkloadTable, kept_keys
from busdoor.names import checked
from busdoor.step_time import StepTime, make_step_time, step_time_class

DEFAULT_POLICIES = ("static", "dynamic", "orca", "vllm")
_TABLES = ("workload", "policy", "kv", "step_time", "gpu", "slo")
_PLAIN = ("seed", "replications", "lookahead")


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
    slo : SLO
        What is promised.
    seed : int
        Of every random stream.
    replications : int
        Draws of the workload.
    lookahead : {0, 1}
        When an iteration is decided: at the end of the one before, or while it still runs.

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
    slo: SLO = field(default_factory=SLO)
    seed: NonNegativeInt = 0
    replications: PositiveInt = 5
    lookahead: Literal[0, 1] = 0

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Config:
        """Build it from nested tables, as TOML gives them; what is absent has its default.

        Raises
        ------
        ValueError
            One sentence that names the table, the key, the value and what would be right.
        """
        return parse_config(Document(dict(table)))

    def to_dict(self) -> dict[str, Any]:
        """Return tables that strict JSON can hold and that `from_table` builds the same configuration from."""
        tables = {
            "workload": self.workload.to_dict(),
            "policy": [policy.to_dict() for policy in self.policies],
            "kv": _said(self.kv),
            "gpu": _gpu_dict(self.gpu),
            "step_time": self.step_time.describe(),
            "slo": dict(self.slo.limits_s),
            **{key: getattr(self, key) for key in _PLAIN},
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
    merged = merge(document.data, overrides or {})
    return parse_config(Document(merged, document.file, document.lines), Path(path).parent)


def merge(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace single keys of a configuration's tables; of another workload's laws none is left.

    Examples
    --------
    >>> merge({"seed": 1, "gpu": {"name": "h100", "tp": 2}}, {"gpu": {"name": "h200"}})
    {'seed': 1, 'gpu': {'name': 'h200', 'tp': 2}}
    >>> merge({"workload": {"name": "azure-conv", "num_requests": 9}}, {"workload": {"path": "mine.csv"}})
    {'workload': {'num_requests': 9, 'path': 'mine.csv'}}
    """
    merged = dict(table)
    for key, value in overrides.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = {**_kept(key, old, value), **value}
        else:
            merged[key] = value
    return merged


def _kept(key: str, old: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keys of a table that stay where a flag changes others of it: none of another step time's."""
    if key == "step_time" and "name" in value:
        return {}
    return kept_keys(old, value) if key == "workload" else old


def parse_config(document: Document, folder: str | Path = ".") -> Config:
    """Build a configuration from a document, blaming its file and line for what is wrong.

    Parameters
    ----------
    document : Document
        The tables.
    folder : str or Path
        Where relative paths start.
    """
    data = document.data
    with document.blame():
        _reject_unknown_tables(data)
    with document.blame("workload"):
        workload = WorkloadTable.from_table(_table(data, "workload"), folder)
    with document.blame("kv"):
        kv = _strict(KVTable, _table(data, "kv"), "[kv]")
    with document.blame("gpu"):
        card = _strict(GPUTable, _table(data, "gpu"), "[gpu]")
        if kv.num_blocks is None:
            card.num_blocks(kv.block_size)  # says so here if the model does not fit
    with document.blame("step_time"):
        step_time = _step_time(_table(data, "step_time"), card, Path(folder))
    with document.blame("slo"):
        slo = SLO.from_table(_table(data, "slo"))
    policies = _policies(document, card)
    parts = {"workload": workload, "policies": policies, "kv": kv, "gpu": card, "step_time": step_time, "slo": slo}
    with document.blame():
        return checked(Config, {**parts, **{key: data[key] for key in _PLAIN if key in data}}, "the configuration's")


def _reject_unknown_tables(data: Mapping[str, Any]) -> None:
    brackets = {name: f"[{name}]" if name in _TABLES else name for name in (*_TABLES, *_PLAIN)}
    for key, value in data.items():
        if key not in brackets:
            shown = f"[{key}]:" if isinstance(value, (dict, list)) else f"{key}:"
            try:
                reject_unknown("", [key], brackets)
            except ValueError as error:
                guess = str(error).partition("unknown; ")[2].removeprefix("did you mean ").removesuffix("?")
                near = f"did you mean {brackets[guess]}?" if guess in brackets else guess
                raise ValueError(f"{shown} unknown; {near}") from None


def _table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} = {table!r}: it has to be a table, [{name}]")
    return dict(table)


def _strict(cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
    reject_unknown(where, table, cls.__dataclass_fields__)
    return checked(cls, table, where)


def _step_time(table: Mapping[str, Any], card: GPUTable, folder: Path) -> StepTime:
    fields = dict(table)
    name = fields.pop("name", "roofline")
    if isinstance(fields.get("path"), str) and (folder / fields["path"]).is_file():  # else the name of a calibration
        fields["path"] = str(folder / fields["path"])
    if not isinstance(name, str):
        raise ValueError(f"[step_time] name = {name!r}: it has to be a string")
    try:
        cls = step_time_class(name)
    except ValueError as error:
        raise ValueError(f"[step_time] name: {error}") from error
    known = getattr(cls, "__dataclass_fields__", None)
    if known is not None:
        reject_unknown("[step_time]", fields, known)
    defaults = card.roofline() if name == "roofline" else {}
    return make_step_time(name, **{**defaults, **fields})


def _policies(document: Document, card: GPUTable) -> tuple[PolicyTable, ...]:
    given = document.data.get("policy", list(DEFAULT_POLICIES))
    policies = []
    for index, table in enumerate(given if isinstance(given, list) else [given]):
        with document.blame("policy", index):
            named = {"name": table} if isinstance(table, str) else table
            if not isinstance(named, Mapping):
                raise ValueError(f"policy = {table!r}: it has to be a table, [policy], or several, [[policy]]")
            policies.append(PolicyTable.from_table(named, card))
    if not policies:
        raise ValueError("policy = []: name at least one")
    return label_policies(policies)


def strict_json(value: Any) -> Any:
    """Write infinity, which JSON does not have, as the string that reads back as one.

    Examples
    --------
    >>> strict_json({"max_wait_s": float("inf"), "name": "static"})
    {'max_wait_s': 'inf', 'name': 'static'}
    """
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return str(value) if isinstance(value, float) and isinf(value) else value


def _said(table: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(table).items() if value is not None}


def _gpu_dict(table: GPUTable) -> dict[str, Any]:
    said = {key: value for key in table.__dataclass_fields__ if (value := getattr(table, key)) is not None}
    in_catalog = table.name in map(gpu, gpu_names()), table.model in map(model, model_names())
    said["name"] = table.name.name if in_catalog[0] else asdict(table.name)
    said["model"] = table.model.name if in_catalog[1] else asdict(table.model)
    return said
