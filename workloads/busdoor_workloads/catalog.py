"""Workloads by name: profiles of public traces, and presets that other tools and papers use."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from busdoor_workloads.given import table as a_table
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.workload import Workload

_DATA = files("busdoor_workloads") / "data"


def profile_names() -> list[str]:
    """Return the names of the shipped profiles of public traces.

    Examples
    --------
    >>> "azure-conv" in profile_names()
    True
    """
    return sorted(entry.name.removesuffix(".json") for entry in (_DATA / "profiles").iterdir())


def preset_names() -> list[str]:
    """Return the names of the presets.

    Examples
    --------
    >>> "anyscale_512" in preset_names()
    True
    """
    return sorted(_presets())


def workload_names() -> list[str]:
    """Return every name that `resolve` knows."""
    return profile_names() + preset_names()


def profile(name: str) -> Workload:
    """Return the workload fitted to a public trace.

    Parameters
    ----------
    name : str
        One of `profile_names`.

    Returns
    -------
    Workload
        Own fitted parameters, no rows of the trace; its `source`, `licence` and `note` name where
        they come from and what is left out.

    Raises
    ------
    ValueError
        No such profile; the sentence has the nearest name.

    Examples
    --------
    >>> trace = profile("azure-conv").generate(seed=0, num_requests=10_000)
    >>> profile("azure-conv").pairs.outputs.quantile([0.5, 0.99])
    array([129, 601])
    """
    return resolve(name, profile_names())


def preset(name: str) -> Workload:
    """Return a preset.

    Parameters
    ----------
    name : str
        One of `preset_names`.

    Raises
    ------
    ValueError
        No such preset; the sentence has the nearest name.

    Examples
    --------
    >>> preset("orca_u32_512x128").pairs.inputs.mean_tokens
    272.0
    """
    return resolve(name, preset_names())


def resolve(name: str, names: list[str] | None = None) -> Workload:
    """Return the profile or preset of that name.

    Parameters
    ----------
    name : str
        One of `workload_names`.
    names : list of str, optional
        Which to look among; all if left out.

    Raises
    ------
    ValueError
        No such workload; the sentence has the nearest name.

    Examples
    --------
    >>> resolve("azure-cnv")
    Traceback (most recent call last):
        ...
    ValueError: there is no workload 'azure-cnv'; did you mean 'azure-conv'?
    """
    known = workload_names() if names is None else names
    if name not in known:
        raise ValueError(f"there is no workload {name!r}; {did_you_mean(name, known)}")
    presets = _presets()
    return Workload(**(presets[name] if name in presets else _profile_table(name)))


def workload_from_table(table: Mapping[str, Any]) -> Workload:
    """Return a workload as a configuration file writes it.

    Parameters
    ----------
    table : mapping
        The fields of `Workload`. With ``base``, the name of a profile or preset, the other keys
        change that one; `request_rate` sets its rate.

    Raises
    ------
    ValueError
        One sentence that names the key, the value and what would be right, or the nearest right
        name.

    Examples
    --------
    >>> slow = workload_from_table({"base": "azure-conv", "request_rate": 2, "timeout_s": 30})
    >>> slow.arrival, slow.timeout_s
    (Poisson(request_rate=2.0, normalize_duration=False), 30.0)
    """
    keys = a_table("the workload", table)
    base, request_rate = keys.pop("base", None), keys.pop("request_rate", None)
    workload = Workload(**keys) if base is None else _changed(base, keys)
    return workload if request_rate is None else workload.at_rate(request_rate)


def _changed(base: str, keys: Mapping[str, Any]) -> Workload:
    workload = resolve(base)
    if "input_tokens" in keys or "output_tokens" in keys:
        pairs = workload.pairs
        keys = {
            "input_tokens": pairs.inputs,
            "output_tokens": pairs.outputs,
            "lengths": None,
        } | dict(keys)
    return Workload(
        **{name: getattr(workload, name) for name in workload.__dataclass_fields__} | dict(keys)
    )


def _profile_table(name: str) -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads((_DATA / "profiles" / f"{name}.json").read_text("utf-8"))
    return table


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    tables = tomllib.loads((_DATA / "presets.toml").read_text("utf-8"))
    return {name: {"name": name} | table for name, table in tables.items()}
