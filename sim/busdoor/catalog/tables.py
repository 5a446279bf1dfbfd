"""The data files of the catalogue, and looking a name up in them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from busdoor.core.names import unknown

Table = dict[str, Any]

# What a published model's name carries without changing its shape.
_SUFFIX = re.compile(r"-(instruct|chat|base|hf|it|fp16|bf16)(?=-|$)")


@cache
def read_tables(file: str) -> Mapping[str, Table]:
    """Tables of a catalogue data file, keys as `name`; cached, so not to be changed."""
    text = resources.files("busdoor.catalog").joinpath(file).read_text(encoding="utf-8")
    return {name: {"name": name, **table} for name, table in tomllib.loads(text).items()}


def plain(name: str) -> str:
    """Bring a name to the form that the tables use.

    >>> plain("meta-llama/Llama-3.1-8B-Instruct"), plain("NVIDIA H100 SXM")
    ('llama-3.1-8b', 'h100-sxm')
    """
    last = name.lower().rpartition("/")[2]
    dashed = re.sub(r"[\s_]+", "-", last.strip())
    return _SUFFIX.sub(
        "", re.sub(r"^(nvidia-geforce|amd-instinct|nvidia|amd|geforce|tesla|meta)-", "", dashed)
    )


def find(tables: Mapping[str, Table], what: str, name: object) -> Table:
    """Look up the table of a name or alias, in any case.

    Raises ValueError if there is none; the message has the nearest name.
    """
    if not isinstance(name, str):
        raise ValueError(
            f"{name!r} is not {what}; it must be a name ({min(tables)}, ...) or a table"
        )
    found = _entry(tables, name)
    if found is None:
        raise unknown(what, name, tables)
    return found


def _entry(tables: Mapping[str, Table], name: str) -> Table | None:
    wanted = plain(name)
    return next(
        (
            table
            for key, table in tables.items()
            if wanted == key or wanted in table.get("aliases", ())
        ),
        None,
    )


def look_up(tables: Mapping[str, Table], what: str, name: object) -> Table:
    """Return the table of a name, or a user's table filled from the catalogue.

    Raises ValueError if it is a name that the catalogue does not have; the message has the nearest
    one.
    """
    return complete(tables, name) if isinstance(name, Mapping) else find(tables, what, name)


def complete(tables: Mapping[str, Table], table: Mapping[str, Any]) -> Table:
    """Fill a user's table from the catalogue entry of the same name or alias, if there is one."""
    known = _entry(tables, str(table.get("name", "")))
    return {"name": "custom", **(known or {}), **table}
