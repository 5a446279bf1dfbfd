"""The table [sweep]: lists of values by dotted keys, and their combinations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from busdoor.core.units import reject_unknown

COMBINATIONS = ("product", "zip")
Parameters = dict[str, Any]


def combinations(table: Mapping[str, Any]) -> list[Parameters]:
    """Combine the lists of a [sweep] table into values by dotted key.

    `combine` = "product" (default: every value with every other, the last key turning fastest) or
    "zip" (first with first, second with second). Every other key is dotted as in `gpu.name` and has
    a list; a whole table may be swept too, as in `gpu = [{name = "h100", price_per_hour = 3.0},
    {name = "h200", price_per_hour = 4.0}]`. Raises ValueError: one sentence that names the key and
    what would be right.

    >>> combinations({"kv.num_blocks": [100, 200], "seed": [1, 2], "combine": "zip"})
    [{'kv.num_blocks': 100, 'seed': 1}, {'kv.num_blocks': 200, 'seed': 2}]
    >>> combinations({"seed": 3})
    Traceback (most recent call last):
    ValueError: [sweep] seed = 3: it must be a list of values, as in seed = [3]
    """
    lists = dict(_lists({key: value for key, value in table.items() if key != "combine"}))
    if not lists:
        raise ValueError(
            '[sweep] names nothing to vary; write for example "gpu.name" = ["h100", "h200"]'
        )
    combine = table.get("combine", "product")
    if combine not in COMBINATIONS:
        raise ValueError(f"[sweep] combine = {combine!r}: it must be 'product' or 'zip'")
    rows = itertools.product(*lists.values()) if combine == "product" else _zipped(lists)
    return [dict(zip(lists, row, strict=True)) for row in rows]


def _lists(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Flatten: gpu.name = [...] without quotes is a table inside the table."""
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _lists(value, f"{dotted}.")
        elif not isinstance(value, list):
            shown = json.dumps(value, default=str)
            raise ValueError(
                f"[sweep] {dotted} = {shown}: it must be a list of values, as in {dotted} = "
                f"[{shown}]"
            )
        elif not value:
            raise ValueError(f"[sweep] {dotted} = []: it needs a value at least")
        else:
            yield dotted, value


def _zipped(lists: Mapping[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    sizes = {key: len(values) for key, values in lists.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{key} has {size}" for key, size in sizes.items())
        raise ValueError(f"[sweep] combine = 'zip' needs lists of the same length, but {said}")
    return zip(*lists.values(), strict=True)


def nested(parameters: Parameters) -> dict[str, Any]:
    """Return the configuration tables that dotted keys mean; a policy may be just its name.

    >>> nested({"gpu": {"name": "h200", "tp": 2}, "gpu.model": "qwen3-8b", "seed": 1})
    {'gpu': {'name': 'h200', 'tp': 2, 'model': 'qwen3-8b'}, 'seed': 1}
    """
    tables: dict[str, Any] = {}
    for dotted in sorted(parameters, key=lambda key: key.count(".")):  # whole tables first
        value = parameters[dotted]
        *path, last = dotted.split(".")
        table = tables
        for key in path:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ValueError(f"[sweep] {dotted}: {key} is swept too, and is no table")
        table[last] = (
            {"name": value} if dotted == "policy" and isinstance(value, str) else deepcopy(value)
        )
    return tables


def columns(parameters: Parameters) -> Parameters:
    """Return the parameters as columns: a swept table's keys singly, deeper ones as JSON.

    >>> columns({"gpu": {"name": "h200", "tp": 2}, "workload.output_tokens": {"type": "constant", "value": 9}})
    {'gpu.name': 'h200', 'gpu.tp': 2, 'workload.output_tokens': '{"type": "constant", "value": 9}'}
    """
    flat: Parameters = {}
    for key, value in parameters.items():
        whole = isinstance(value, Mapping) and "." not in key
        flat |= {f"{key}.{name}": item for name, item in value.items()} if whole else {key: value}
    return {key: _plain(value) for key, value in flat.items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value, default=str)


def reject_unknown_tables(parameters: Parameters, known: tuple[str, ...]) -> None:
    """Raise ValueError for a dotted key without a table, with the nearest that exists."""
    reject_unknown("[sweep]", [key.partition(".")[0] for key in parameters], known)
