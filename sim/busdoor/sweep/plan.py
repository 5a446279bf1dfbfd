"""From study to points: each combination of a sweep as a configuration; lasting names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from busdoor.comparison.api import DEFAULT_JOB
from busdoor.config import DEFAULT_POLICIES, merge, override, parse_config
from busdoor.config.tables import PLAIN_KEYS, TABLES
from busdoor.core.toml import Document, read_toml
from busdoor.core.units import reject_unknown
from busdoor.policies import policy_config
from busdoor.sweep.axes import Parameters, columns, combinations, nested, reject_unknown_tables
from busdoor.sweep.key import point_key, table_key


@dataclass(frozen=True)
class Point:
    """One policy at one combination of the swept values.

    Parameters
    ----------
    parameters : dict
        Swept values by dotted key, and `policy`, its label. A key of [policy] is absent where the
        policy has no such field.
    table : dict
        The configuration, as `Config.to_dict` gives it, with this one policy.
    key : str
        What its record is called: a hash of the configuration, see `point_key`.
    error : str
        Why there is no such configuration; empty where there is one.
    """

    parameters: Parameters
    table: Mapping[str, Any] = field(repr=False)
    key: str
    error: str = ""


def load_plan(path: str | Path) -> list[Point]:
    """Read a study: a configuration file with a table [sweep].

    Parameters
    ----------
    path : str or Path
        TOML. A relative [workload] path starts at its folder.

    Raises
    ------
    ValueError
        One sentence that begins with the file and the line.
    OSError
        If the file cannot be read.
    """
    document = read_toml(path)
    text = Path(path).read_text(encoding="utf-8")
    return plan_document(
        replace(document, lines={**document.lines, **_swept_lines(text)}), Path(path).parent
    )


def plan(table: Mapping[str, Any]) -> list[Point]:
    """Plan a sweep from tables, as TOML gives them; see `load_plan`.

    Examples
    --------
    >>> study = {"policy": ["static", "vllm"], "sweep": {"policy.max_num_batched_tokens": [2048, 8192]}}
    >>> [point.parameters for point in plan(study)]
    [{'policy': 'static'}, {'policy.max_num_batched_tokens': 2048, 'policy': 'vllm'},
     {'policy.max_num_batched_tokens': 8192, 'policy': 'vllm'}]
    >>> plan({"sweep": {"gpu.nam": ["h100"]}})
    Traceback (most recent call last):
    ValueError: [gpu] nam: unknown; did you mean name?
    """
    return plan_document(Document(dict(table)))


def plan_document(document: Document, folder: str | Path = ".") -> list[Point]:
    """Plan the sweep of a document: its points in order, each once.

    Raises ValueError if a key is not known, or if no combination is possible at all; a combination
    that is impossible among others that are not becomes a point with an `error`.
    """
    base = {**DEFAULT_JOB, **document.data}
    sweep = base.pop("sweep", None)
    if not isinstance(sweep, Mapping):
        raise ValueError(
            f"{document.file or 'the study'} has no table [sweep]; it says what to vary"
        )
    with document.blame("sweep"):
        combined = combinations(sweep)
        reject_unknown_tables(combined[0], (*TABLES, *PLAIN_KEYS))
        _reject_unknown_fields(base, combined)
    # tables that are swept whole are checked too
    override(replace(document, data=base), nested(combined[0]), folder)
    points: dict[str, Point] = {}
    for parameters in combined:
        for point in _points(document, base, parameters, folder):
            points.setdefault(json.dumps([point.parameters, point.key], default=str), point)
    if all(point.error for point in points.values()):
        raise ValueError(next(iter(points.values())).error)
    return list(points.values())


def _points(
    document: Document, base: Mapping[str, Any], parameters: Parameters, folder: str | Path
) -> Iterator[Point]:
    """Build the configuration of one combination, and take its policies apart."""
    tables = nested(parameters)
    changed = tables.pop("policy", {})
    merged = merge(base, tables)
    try:
        policies = [dict(table) for table in _policy_tables(merged, changed)]
        merged["policy"] = [table | _own_fields(table, changed) for table in policies]
        config = parse_config(replace(document, data=merged), folder)
    except (ValueError, OSError) as error:
        yield Point(
            columns(parameters), merged, table_key({**merged, "policy": changed}), str(error)
        )
        return
    whole = portable(config.to_dict(), merged)
    for policy, given in zip(config.policies, policies, strict=True):
        table = {**whole, "policy": config.with_policy(policy).to_dict()["policy"]}
        own = {
            key: value
            for key, value in columns(parameters).items()
            if _belongs(key, given, changed)
        }
        yield Point({**own, "policy": policy.label}, table, point_key(table))


def _policy_tables(base: Mapping[str, Any], changed: Any) -> list[dict[str, Any]]:
    """Return a combination's policies before swept fields: swept by name, table, or base's."""
    if not isinstance(changed, Mapping):
        given: Any = changed
    elif "name" in changed:
        given = {"name": changed["name"]}
    else:
        given = base.get("policy", list(DEFAULT_POLICIES))
    tables = given if isinstance(given, list) else [given]
    return [{"name": table} if isinstance(table, str) else dict(table) for table in tables]


def _own_fields(policy: Mapping[str, Any], changed: Any) -> dict[str, Any]:
    """Of swept [policy] fields, those that this policy has."""
    if not isinstance(changed, Mapping):
        return {}
    return {key: value for key, value in changed.items() if _has(str(policy.get("name")), key)}


def _belongs(key: str, policy: Mapping[str, Any], changed: Any) -> bool:
    table, _, name = key.partition(".")
    if table != "policy":
        return True
    return name != "name" and isinstance(changed, Mapping) and _has(str(policy.get("name")), name)


def _has(policy: str, name: str) -> bool:
    return ":" in policy or name in ("name", "label") or name in _field_names(policy)


@cache
def _field_names(policy: str) -> frozenset[str]:
    config: Any = policy_config(policy)
    return frozenset(entry.name for entry in fields(config))


def _reject_unknown_fields(base: Mapping[str, Any], combined: list[Parameters]) -> None:
    """Raise ValueError for a swept field that no policy has; all would be left as they are."""
    swept = [key for key in combined[0] if key.startswith("policy.")]
    changes = [nested(parameters).get("policy", {}) for parameters in combined]
    names = {
        name
        for changed in changes
        for table in _policy_tables(base, changed)
        if (name := table.get("name"))
    }
    if not any(":" in name for name in names):
        known = {"name", "label"}.union(*map(_field_names, names))
        reject_unknown("[sweep]", swept, [f"policy.{name}" for name in known])


def portable(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that means the same in another process and folder.

    `given` are the tables that it was built from: a step-time model of the user's own need not
    describe itself in full, so what was given for it stays.
    """
    workload = dict(table["workload"])
    if "path" in workload:
        workload["path"] = str(Path(workload["path"]).resolve())
    step_time = given.get("step_time", {})
    own = {"step_time": dict(step_time)} if ":" in step_time.get("name", "") else {}
    return {**table, **own, "workload": workload}


def _swept_lines(text: str) -> dict[tuple[str, int, str], int]:
    """Find the lines of swept keys, so that a message about a value names its line."""
    lines: dict[tuple[str, int, str], int] = {}
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            inside = line.strip().startswith("[sweep")
        elif inside and (match := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)):
            table, _, name = match[1].rpartition(".")
            lines[table, 0, name] = lines["sweep", 0, name] = number
    return lines
