"""The JSON Schema of a configuration: every field has words, and it takes what `Config` takes."""

import re
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from busdoor.config.schema import config_schema
from busdoor.core.field_words import field_words, unit_of
from busdoor.policies import POLICIES
from busdoor.step_time import STEP_TIMES

ROOT = Path(__file__).parents[2]
SCHEMA = config_schema()
CHECK = Draft202012Validator(SCHEMA)


def fields(schema, place="$"):
    """Yield every field of every table, by where it stands."""
    if isinstance(schema, list):
        for item in schema:
            yield from fields(item, place)
    elif isinstance(schema, dict):
        here = f"{place}.{schema['title']}" if isinstance(schema.get("title"), str) else place
        for key, entry in schema.get("properties", {}).items():
            yield f"{here}.{key}", entry
            yield from fields(entry, f"{here}.{key}")
        for key in ("$defs", "anyOf", "items", "additionalProperties"):
            inner = schema.get(key) or {}
            for name, entry in inner.items() if key == "$defs" else [("", inner)][: bool(inner)]:
                yield from fields(entry, f"{here}.{name}" if name else here)


def test_every_field_has_words():
    found = dict(fields(SCHEMA))
    assert len(found) > 300
    assert [
        place
        for place, entry in found.items()
        if not entry.get("description") and not {"const", "$ref"} & entry.keys()
    ] == []


def test_no_two_fields_of_a_table_share_their_words():
    tables = {}
    for place, entry in fields(SCHEMA):
        if words := entry.get("description"):
            tables.setdefault((place.rpartition(".")[0], words), set()).add(place)
    assert [places for places in tables.values() if len(places) > 1] == []


def test_it_is_a_schema_with_every_policy_and_step_time():
    Draft202012Validator.check_schema(SCHEMA)
    for table, known in (("policy", POLICIES), ("step_time", STEP_TIMES)):
        variants = SCHEMA["$defs"][table]["anyOf"][1]["anyOf"]
        assert [one["title"] for one in variants if "title" in one] == list(known)


def test_a_field_that_a_class_gains_without_words_is_found():
    class Bare:
        """Nothing said."""

        width_m: float = 1.0

    assert "width_m" not in field_words(Bare)


@pytest.mark.parametrize(
    ("place", "unit"), [("max_wait_s", "s"), ("link_bytes_per_s", "bytes/s"), ("queue", "")]
)
def test_units_come_from_names(place, unit):
    assert unit_of(place) == unit


def toml_blocks():
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for page in pages:
        for number, block in enumerate(
            re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
        ):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("block", list(toml_blocks()))
def test_it_takes_what_the_pages_show(block):
    assert [error.message[-300:] for error in CHECK.iter_errors(tomllib.loads(block))] == []


@pytest.mark.parametrize(
    "table",
    [
        {"polcy": "vllm"},
        {"kv": {"block_sise": 16}},
        {"kv": {"block_size": 0}},
        {"policy": {"name": "vllm", "max_num_seq": 8}},
        {"slo": {"ttft_p99": "2 sec"}},
        {"workload": {"request_rate": -1}},
        {"lookahead": 2},
    ],
)
def test_it_refuses_what_config_refuses(table):
    assert not CHECK.is_valid(table)
