"""From the classes of a configuration to JSON Schema: pydantic's, with our words and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from math import isinf
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from busdoor.catalog import (
    GPU,
    Engine,
    ModelShape,
    engine,
    engine_names,
    gpu,
    gpu_names,
    model,
    model_names,
)
from busdoor.catalog.gpus import by_format
from busdoor.core.field_words import field_words, summary
from busdoor.core.units import parse_seconds
from busdoor_workloads.arrivals.base import as_arrivals
from busdoor_workloads.durations import as_seconds
from busdoor_workloads.lengths.base import as_lengths
from busdoor_workloads.lengths.pairs import as_pairs

Schema = dict[str, Any]
_OURS = "$busdoor"  # for a reference to a definition of ours, which pydantic does not know
DURATION: Schema = {
    "type": "string",
    "pattern": r"^\s*[0-9.eE+-]+\s*(us|ms|s|min|h)?\s*$",
    "description": "A duration with its unit: 200ms, 2s, 5min, 1h.",
}
# What may stand in TOML where a class of ours is read: by the function that reads it.
_NAMES = {gpu: gpu_names, model: model_names, engine: engine_names}
_LAWS = {as_lengths: "Lengths", as_pairs: "Pairs", as_arrivals: "Arrivals"}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, which here also knows names, durations, laws, and our words."""

    def function_before_schema(self, schema: Any) -> JsonSchemaValue:
        inner, read = super().function_before_schema(schema), schema["function"]["function"]
        if read is parse_seconds:
            return {"anyOf": [inner, DURATION]}
        if read in _NAMES:
            return {"anyOf": [{"type": "string", "examples": list(_NAMES[read]())}, inner]}
        return {"anyOf": [{"type": "number"}, inner]} if read is by_format else inner

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        read = schema["function"]["function"]
        if read is as_seconds:
            return {"anyOf": [{"type": "number"}, DURATION, {_OURS: "Lengths"}]}
        number = [] if read is as_pairs else [{"type": "number"}]
        return {"anyOf": [*number, {_OURS: _LAWS[read]}]}

    def is_instance_schema(self, schema: Any) -> JsonSchemaValue:
        return {_OURS: "step_time"}  # the one class that a table holds as it is

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        made, cls = super().dataclass_schema(schema), schema["cls"]
        words, declared = field_words(cls), {one.name: one for one in fields(cls)}
        for name, entry in made.get("properties", {}).items():
            if name in words:
                entry["description"] = words[name]
            if "default" not in entry and (default := _made_default(declared[name])) is not None:
                entry["default"] = default
        if cls in (GPU, ModelShape, Engine):
            made.pop("required", None)  # the catalogue completes a table of one's own
        return made | {"description": summary(cls)}


def _made_default(declared: Any) -> str | None:
    """Return the name of what a field's factory makes, if it has one."""
    default = declared.default
    factory = getattr(default, "default_factory", None) or declared.default_factory
    return getattr(factory(), "name", None) if factory not in (None, MISSING) else None


def schema_of(cls: Any, without: Iterable[str] = ()) -> Schema:
    """Return the object of a dataclass, all its parts written out."""
    given = TypeAdapter(cls).json_schema(schema_generator=_Generator)
    made: Schema = _inlined(given, given.pop("$defs", {}))
    made["properties"] = {
        name: entry for name, entry in made.get("properties", {}).items() if name not in without
    }
    made.pop("required", None)
    return made


def _inlined(value: Any, parts: Mapping[str, Any]) -> Any:
    """Return a schema with its own definitions in the place of the references to them."""
    if isinstance(value, list):
        return [_inlined(item, parts) for item in value]
    if not isinstance(value, dict):
        return value
    if _OURS in value:
        rest = {key: item for key, item in value.items() if key != _OURS}
        return {"$ref": f"#/$defs/{value[_OURS]}", **rest}
    name = str(value.get("$ref", "")).removeprefix("#/$defs/")
    if name in parts:
        rest = {key: item for key, item in value.items() if key != "$ref"}
        return _inlined(parts[name], parts) | rest
    return {key: _inlined(item, parts) for key, item in value.items()}


def schemas_of_hints(described: Any, names: Iterable[str], defaults: Mapping[str, Any]) -> Schema:
    """Return what some fields of a class, or arguments of a function, take."""
    hints, words = get_type_hints(described, include_extras=True), field_words(described)
    return {
        name: TypeAdapter(hints[name]).json_schema()
        | {"description": words[name], "default": defaults[name]}
        for name in names
    }


def cleaned(value: Any) -> Any:
    """Leave out nulls, which TOML does not have, and titles made of names; write inf as TOML."""
    if isinstance(value, list):
        return [cleaned(item) for item in value if item != {"type": "null"}]
    if isinstance(value, float) and isinf(value):
        return "inf"
    if not isinstance(value, dict):
        return value
    found = {key: cleaned(item) for key, item in value.items() if not _is_noise(key, item)}
    only = found.get("anyOf", [])
    return {**found.pop("anyOf")[0], **found} if len(only) == 1 else found


def _is_noise(key: str, item: Any) -> bool:
    return (key == "default" and item is None) or (key == "title" and str(item)[:1].isupper())
