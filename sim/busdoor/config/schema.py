"""The JSON Schema of a configuration, made of the classes that read it: editors complete by it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from busdoor.catalog import Engine, engine_names
from busdoor.cluster.registry import ROUTERS
from busdoor.config.cluster import ClusterTable, PoolTable
from busdoor.config.config import Config
from busdoor.config.recommend import RecommendTable
from busdoor.config.schema_generator import (
    DURATION,
    Schema,
    cleaned,
    schema_of,
    schemas_of_hints,
)
from busdoor.config.server_tables import GPUTable, KVTable
from busdoor.config.tables import PLAIN_KEYS, TABLES
from busdoor.config.workload import READ_OPTIONS, WorkloadTable
from busdoor.core.field_words import field_words, summary
from busdoor.metrics.slo_class import COLUMNS
from busdoor.metrics.slo_presets import PRESETS
from busdoor.metrics.slo_target import LATENCIES
from busdoor.policies import POLICIES
from busdoor.step_time import STEP_TIMES
from busdoor_workloads import Workload, workload_names
from busdoor_workloads.arrivals import Arrivals
from busdoor_workloads.config import named_subclasses
from busdoor_workloads.formats import read_trace
from busdoor_workloads.lengths import Lengths, Pairs

_IMPORT_PATH: Schema = {"type": "string", "pattern": ":", "description": "package.module:Class"}
_BASES: dict[str, tuple[type[Any], str]] = {
    "Lengths": (Lengths, "type"),
    "Pairs": (Pairs, "type"),
    "Arrivals": (Arrivals, "process"),
}

_DEFAULTS = {one.name: one.default for one in fields(Config)}


@cache
def config_schema() -> Schema:
    """Return the JSON Schema (2020-12) of the TOML files that commands read.

    >>> table = config_schema()["$defs"]["kv"]["properties"]["block_size"]
    >>> table["default"], table["description"]
    (16, 'Tokens of a block.')
    """
    tables = (*TABLES, "sweep", "recommend")
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "busdoor",
        "description": "A run, a comparison or a study of busdoor.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: {"$ref": f"#/$defs/{name}"} for name in tables},
            **schemas_of_hints(Config, PLAIN_KEYS, {**_DEFAULTS, "lookahead": None}),
        },
        "$defs": {**_tables(), **_variants(), **_law_tables()},
    }
    found: Schema = cleaned(made)
    return found


def _tables() -> Schema:
    """Return the tables that have one form."""
    gpus, kv = schema_of(GPUTable), schema_of(KVTable)
    laws = schema_of(Workload)["properties"]
    arguments = inspect.signature(read_trace).parameters
    read = schemas_of_hints(
        read_trace, READ_OPTIONS, {key: one.default for key, one in arguments.items()}
    )
    own = schema_of(WorkloadTable, without=("laws",))["properties"]
    own["name"] = own["name"] | {"examples": list(workload_names())}
    base = {"type": "string", "examples": list(workload_names())}
    base["description"] = "A profile or preset whose laws the other keys change."
    pool = schema_of(PoolTable, without=("policy",)) | {"required": []}
    pool["properties"] |= {"kv": {"$ref": "#/$defs/kv"}, "gpu": {"$ref": "#/$defs/gpu"}}
    pool["properties"]["policy"] = {
        "type": "object",
        "description": field_words(PoolTable)["policy"],
    }
    cluster = schema_of(ClusterTable, without=("pools",))
    for key in ("router", "decode_router"):
        cluster["properties"][key] = _router(cluster["properties"][key])
    cluster["properties"]["pool"] = {
        "type": "array",
        "items": pool,
        "description": field_words(ClusterTable)["pools"],
    }
    workload = {
        "type": "object",
        "additionalProperties": False,
        "description": summary(WorkloadTable),
    }
    return {
        "workload": {**workload, "properties": {**laws, "base": base, **read, **own}},
        "kv": kv,
        "gpu": gpus,
        "engine": {"anyOf": [{"type": "string", "examples": engine_names()}, schema_of(Engine)]},
        "slo": _slo(),
        "cluster": cluster,
        "sweep": _sweep(),
        "recommend": schema_of(RecommendTable),
    }


def _variants() -> Schema:
    """Return the tables whose fields depend on a name."""
    policies = _by_name("name", POLICIES, {"label": ("string", "What tables and plots call it.")})
    named = {"type": "string", "examples": list(POLICIES), "description": "A policy by its name."}
    one = {"anyOf": [named, policies]}
    step_times = _by_name("name", STEP_TIMES, {})
    spoken = {
        "type": "string",
        "examples": list(STEP_TIMES),
        "description": "A model by its name, a shipped calibration by its name, or a file of one.",
    }
    return {
        "policy": {"anyOf": [*one["anyOf"], {"type": "array", "items": one}]},
        "step_time": {"anyOf": [spoken, step_times]},
    }


def _law_tables() -> Schema:
    """Return the laws of lengths and arrivals."""
    return {
        name: {"description": summary(base)} | _by_name(key, named_subclasses(base, key), {})
        for name, (base, key) in _BASES.items()
    }


def _by_name(key: str, known: Mapping[str, Any], shared: Mapping[str, tuple[str, str]]) -> Schema:
    """Return tables of which each has the fields of the class that its `key` names."""
    more = {name: {"type": kind, "description": words} for name, (kind, words) in shared.items()}
    tables = []
    for name, cls in known.items():
        table = schema_of(cls)
        table["properties"] = {key: {"const": name}, **more, **table["properties"]}
        tables.append(table | {"title": name, "required": [key]})
    own = {"type": "object", "properties": {key: _IMPORT_PATH}, "required": [key]}
    return {"anyOf": [*tables, *([own] if key == "name" else [])]}


def _router(entry: Schema) -> Schema:
    known = {name: cls for name, cls in ROUTERS.items() if hasattr(cls, "__pydantic_fields__")}
    name = {"type": "string", "examples": list(ROUTERS)}
    return {
        "anyOf": [name, _by_name("name", known, {})],
        "description": entry["description"],
        "default": entry.get("default"),
    }


def _slo() -> Schema:
    """Return [slo], and the same again for a class of requests with the keys that select them."""
    one = _slo_of_all()
    words = {
        "priority": "Requests of this priority; those of a trace without any have 0.",
        "value": "Requests with this value in the column.",
        "at_least": "Requests with at least this value in the column.",
        "below": "Requests with less than this value in the column.",
    }
    keys: Schema = {key: {"type": "integer", "description": text} for key, text in words.items()}
    keys["column"] = {"enum": list(COLUMNS), "description": "Column of the trace."}
    of_class = {**one, "description": "[slo.NAME]: targets of a class of requests."}
    of_class["properties"] = one["properties"] | keys
    return {**one, "additionalProperties": of_class}


def _slo_of_all() -> Schema:
    limit = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, DURATION]}
    plain = (
        "Limit on the {} of single requests; the share `goodput` must be within all such limits."
    )
    on = "Limit on a statistic of the latency: its mean, or a percentile such as p99."
    return {
        "type": "object",
        "description": "[slo]: targets that must be met together.",
        "properties": {
            **{name: limit | {"description": plain.format(name)} for name in LATENCIES},
            "goodput": {
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": 1,
                "default": 0.99,
                "description": "Share of the requests that must be within all plain limits.",
            },
            "preset": {
                "enum": list(PRESETS),
                "description": "Limits by name, which the other keys override.",
            },
        },
        "patternProperties": {
            rf"^({'|'.join(LATENCIES)})_(mean|p[0-9.]+)$": limit | {"description": on}
        },
        "additionalProperties": False,
    }


def _sweep() -> Schema:
    return {
        "type": "object",
        "description": "[sweep]: lists of values by dotted keys, for `busdoor sweep`.",
        "properties": {
            "combine": {
                "enum": ["product", "zip"],
                "default": "product",
                "description": "Every value with every other, or first with first.",
            }
        },
        "additionalProperties": {
            "anyOf": [{"type": "array"}, {"type": "object"}],
            "description": 'Values of a key, as in "gpu.name" = ["h100", "h200"].',
        },
    }
