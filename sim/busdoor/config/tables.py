"""The tables and keys of a configuration: their names, and how they are written as strict JSON."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf
from typing import Any

from busdoor.core.units import reject_unknown

TABLES = ("workload", "policy", "kv", "step_time", "gpu", "engine", "slo", "cluster")
PLAIN_KEYS = ("seed", "replications", "lookahead")


def reject_unknown_tables(data: Mapping[str, Any]) -> None:
    """Raise ValueError for a table or key that a configuration does not have, with the nearest one.

    >>> reject_unknown_tables({"sed": 1})
    Traceback (most recent call last):
    ValueError: sed: unknown; did you mean seed?
    """
    if "sweep" in data:
        raise ValueError(
            "[sweep]: this file is a study of many configurations; run it with busdoor sweep, or "
            "take the table out"
        )
    if "recommend" in data:
        raise ValueError(
            "[recommend]: this table is for busdoor recommend, which chooses the servers; take it "
            "out for other commands"
        )
    brackets = {name: f"[{name}]" if name in TABLES else name for name in (*TABLES, *PLAIN_KEYS)}
    for key, value in data.items():
        if key not in brackets:
            shown = f"[{key}]:" if isinstance(value, (dict, list)) else f"{key}:"
            try:
                reject_unknown("", [key], brackets)
            except ValueError as error:
                guess = (
                    str(error)
                    .partition("unknown; ")[2]
                    .removeprefix("did you mean ")
                    .removesuffix("?")
                )
                near = f"did you mean {brackets[guess]}?" if guess in brackets else guess
                raise ValueError(f"{shown} unknown; {near}") from None


def strict_json(value: Any) -> Any:
    """Write infinity, which JSON does not have, as the string that reads back as one.

    >>> strict_json({"max_wait_s": float("inf"), "name": "static"})
    {'max_wait_s': 'inf', 'name': 'static'}
    """
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return str(value) if isinstance(value, float) and isinf(value) else value
