"""What there is by name, as plain rows: for `busdoor list` and the pages of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from busdoor.catalog import engine, engine_names, gpu, gpu_names, model, model_names
from busdoor.cluster.registry import ROUTERS
from busdoor.config.schema_generator import Schema, cleaned, schema_of
from busdoor.core.field_words import summary, unit_of
from busdoor.core.format import NOTHING
from busdoor.core.names import unknown
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_presets import PRESETS
from busdoor.policies import POLICIES
from busdoor.policies.config import BUILDERS
from busdoor.step_time import STEP_TIMES
from busdoor.step_time.calibration_files import calibration_names, read_calibration_tables
from busdoor_workloads import workload_names
from busdoor_workloads.catalog import resolve
from busdoor_workloads.config import to_table

GB = 1e9
_LONG = 12  # values of a list that are all shown


class Listing(NamedTuple):
    """A table of names; its first column is the name."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Entry(NamedTuple):
    """One thing by name: what it is in words, and its fields or values as a table."""

    name: str
    about: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


FIELD_HEADS = ("field", "unit", "values", "default", "meaning")


def field_rows(table: Schema) -> list[tuple[str, ...]]:
    """Return a row per field of a schema, under `FIELD_HEADS`; "none" is no default of its own.

    >>> from busdoor.config.server_tables import KVTable
    >>> field_rows(cleaned(schema_of(KVTable)))[0]
    ('block_size', 'tokens', 'whole, > 0', '16', 'Tokens of a block.')
    """
    return [
        (
            name,
            unit_of(name, entry.get("description", "")) or NOTHING,
            values(entry),
            _plain(entry.get("default", "none")),
            entry.get("description", ""),
        )
        for name, entry in table["properties"].items()
        if "const" not in entry
    ]


def values(entry: Schema) -> str:
    """Return in words what a field takes: a range, or the choices."""
    if "enum" in entry:
        return ", ".join(map(str, entry["enum"]))
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(filter(None, map(values, entry["anyOf"]))))
    if "$ref" in entry:
        name = str(entry["$ref"]).rpartition("/")[2]
        return f"a table [{name}]" if name.islower() else f"a table of {name}"
    if "pattern" in entry:
        return "an import path" if entry["pattern"] == ":" else 'text with a unit, as "200ms"'
    kinds = {"integer": "whole", "number": "number", "string": "name", "object": "table"}
    kinds |= {"boolean": "true, false", "array": "list"}
    kind = kinds.get(entry.get("type", ""), "")
    if kind == "list" and entry.get("items"):
        kind = f"list of {values(entry['items'])}"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return ", ".join(
        [kind, *(f"{sign} {entry[key]:g}" for key, sign in bounds.items() if key in entry)]
    )


def _plain(value: Any) -> str:
    """Return a value as a person writes it in TOML; of a long list only its ends.

    >>> _plain([3350000000000.0, True, "vllm"])
    '3.35e+12, true, vllm'
    >>> _plain(range(2, 200))
    '2, 3, 4 ... 199 (198 values)'
    """
    if isinstance(value, list | tuple | range):
        if len(value) > _LONG:
            first = ", ".join(map(_plain, value[:3]))
            return f"{first} ... {_plain(value[-1])} ({len(value)} values)"
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _policies() -> Listing:
    return Listing(("policy", "what it does"), [(name, _policy_words(name)) for name in POLICIES])


def _policy_words(name: str) -> str:
    return summary(BUILDERS[POLICIES[name]])  # type: ignore[index]  # a class of settings


def _policy(name: str) -> Entry:
    return _class_entry(name, POLICIES.find(name), _policy_words(name))


def _class_entry(name: str, cls: Any, about: str) -> Entry:
    return Entry(name, about, FIELD_HEADS, field_rows(cleaned(schema_of(cls))))


def _workloads() -> Listing:
    rows = []
    for name in workload_names():
        law = resolve(name)
        rows.append((name, f"{law.num_requests:,}", law.source))
    return Listing(("workload", "requests", "source"), rows)


def _workload(name: str) -> Entry:
    law = resolve(name)
    return Entry(name, law.note, ("key", "value"), _pairs(to_table(law), without=("name", "note")))


def _gpus() -> Listing:
    heads = ("gpu", "memory, GiB", "bandwidth, GB/s", "bf16, TFLOP/s", "list price, USD per hour")
    cards = map(gpu, gpu_names())
    return Listing(
        heads,
        [
            (
                card.name,
                f"{card.memory_gib:g}",
                f"{card.bandwidth_bytes_per_s / GB:,.0f}",
                f"{card.flop_per_s['bf16'] / 1e12:,.0f}",
                "" if card.price_per_hour is None else f"{card.price_per_hour:g}",
            )
            for card in cards
        ],
    )


def _models() -> Listing:
    heads = ("model", "parameters, billion", "layers", "KV, KiB per token", "longest, tokens")
    shapes = map(model, model_names())
    return Listing(
        heads,
        [
            (
                shape.name,
                f"{shape.num_parameters / GB:,.1f}",
                str(shape.num_hidden_layers),
                f"{shape.kv_bytes_per_token() / 1024:,.0f}",
                f"{shape.max_position_embeddings:,}",
            )
            for shape in shapes
        ],
    )


def _engines() -> Listing:
    heads = ("engine", "versions", "host per step, µs", "per request, µs", "lookahead")
    rows = [
        (
            name,
            one.versions,
            f"{1e6 * one.host_per_step_s:g}",
            f"{1e6 * one.host_per_request_s:g}",
            "" if one.lookahead is None else str(one.lookahead),
        )
        for name, one in ((name, engine(name)) for name in engine_names())
    ]
    return Listing(heads, rows)


def _step_times() -> Listing:
    models = [(name, summary(cls)) for name, cls in STEP_TIMES.items()]
    shipped = [(name, "A calibration that busdoor ships.") for name in calibration_names()]
    return Listing(("step time", "what it is"), models + shipped)


def _step_time(name: str) -> Entry:
    if name in calibration_names():
        table = read_calibration_tables(name)["step_time"]
        return Entry(name, "A calibration that busdoor ships.", ("term", "value"), _pairs(table))
    cls = STEP_TIMES.find(name)
    return _class_entry(name, cls, summary(cls))


def _targets(name: str) -> str:
    return str(SLO.from_table({"preset": name})).removesuffix(f" ({name})")


def _slos() -> Listing:
    rows = [(name, _targets(name), str(table["source"])) for name, table in PRESETS.items()]
    return Listing(("preset", "targets", "source"), rows)


def _slo(name: str) -> Entry:
    if name not in PRESETS:
        raise unknown("a preset", name, PRESETS)
    return Entry(name, _targets(name), ("key", "value"), _pairs(PRESETS[name]))


def _routers() -> Listing:
    return Listing(
        ("router", "sends a request to"), [(name, summary(cls)) for name, cls in ROUTERS.items()]
    )


def _router(name: str) -> Entry:
    cls = ROUTERS.find(name)
    if hasattr(cls, "__pydantic_fields__"):
        return _class_entry(name, cls, summary(cls))
    return Entry(name, summary(cls), FIELD_HEADS, [])


def _instance_entry(found: Any) -> Entry:
    """Return a GPU, model or engine with each value that it has."""
    given = {one.name: getattr(found, one.name) for one in fields(found)}
    return Entry(found.name, "", ("field", "value"), _pairs(given, without=("name", "checked")))


def _pairs(table: Mapping[str, Any], without: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return the keys and values of a table, those inside of tables by dotted keys."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if key in without or value in (None, "", (), {}, []):
            continue
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", text) for inner, text in _pairs(value)]
        else:
            rows.append((key, _plain(value)))
    return rows


# Of every kind: its table, and one of it by name.
KINDS: dict[str, tuple[Callable[[], Listing], Callable[[str], Entry]]] = {
    "policies": (_policies, _policy),
    "workloads": (_workloads, _workload),
    "gpus": (_gpus, lambda name: _instance_entry(gpu(name))),
    "models": (_models, lambda name: _instance_entry(model(name))),
    "engines": (_engines, lambda name: _instance_entry(engine(name))),
    "step-times": (_step_times, _step_time),
    "slos": (_slos, _slo),
    "routers": (_routers, _router),
}
