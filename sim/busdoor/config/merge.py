"""Putting tables over those of a file, as flags and sweeps do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import busdoor_workloads
from busdoor.config.policy import parse_policies
from busdoor.config.server import step_time_fields, table_of
from busdoor.config.server_tables import GPUTable
from busdoor.config.workload import WorkloadTable, kept_keys
from busdoor.core.toml import Document


def override(document: Document, tables: Mapping[str, Any], folder: str | Path = ".") -> Document:
    """Put flags over a file's tables; replaced tables are checked first for mistakes.

    Raises
    ------
    ValueError
        One sentence that begins with the file and the line.

    Examples
    --------
    >>> typo = Document({"workload": {"request_ratee": 3.0}})
    >>> override(typo, {"workload": {"name": "azure-conv"}})
    Traceback (most recent call last):
    ValueError: [workload] request_ratee: unknown; did you mean request_rate?
    """
    if "workload" in tables and "workload" in document.data:
        with document.blame("workload"):
            WorkloadTable.from_table(table_of(document.data, "workload"), folder, exists=False)
    if "step_time" in tables:
        with document.blame("step_time"):
            step_time_fields(table_of(document.data, "step_time"))
    if "policy" in tables:
        parse_policies(document, GPUTable())
    return replace(document, data=merge(document.data, tables))


def merge(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace single keys of a configuration's tables; of another workload's laws none is left.

    A seed replaces that of [workload] too.

    Examples
    --------
    >>> merge({"seed": 1, "gpu": {"name": "h100", "tp": 2}}, {"gpu": {"name": "h200"}})
    {'seed': 1, 'gpu': {'name': 'h200', 'tp': 2}}
    >>> merge({"workload": {"name": "azure-conv", "num_requests": 9}}, {"workload": {"path": "mine.csv"}})
    {'workload': {'num_requests': 9, 'path': 'mine.csv'}}
    """
    merged = dict(table)
    if "seed" in overrides and isinstance(merged.get("workload"), Mapping):
        merged["workload"] = {
            key: value for key, value in merged["workload"].items() if key != "seed"
        }
    for key, value in overrides.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = {**_kept(key, old, value), **value}
        else:
            merged[key] = value
    return merged


def _kept(key: str, old: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys of a table that stay where a flag changes others.

    None of another step time's or engine's, no other GPU's price.
    """
    if key in ("step_time", "engine") and "name" in value:
        return {}
    if key == "gpu" and "name" in value:
        return {name: item for name, item in old.items() if name != "price_per_hour"}
    return kept_keys(old, value) if key == "workload" else old


def workload_key(workload: str | Path) -> str:
    """Return whether a word names a file ("path") or a profile ("name").

    >>> workload_key("azure-conv"), workload_key("traces/mine.csv")
    ('name', 'path')
    """
    if isinstance(workload, Path) or "/" in workload or "." in workload:
        return "path"
    return (
        "path"
        if workload not in busdoor_workloads.workload_names() and Path(workload).exists()
        else "name"
    )
