"""Workloads: lengths, arrival processes, traces and profiles of public traces.

Everything is imported when it is first used: what reads a trace needs no law of lengths.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from busdoor_workloads.catalog import (
        preset,
        preset_names,
        profile,
        profile_names,
        resolve,
        workload_from_table,
        workload_names,
    )
    from busdoor_workloads.generate import generate_at as generate_at
    from busdoor_workloads.laws import Laws as Laws
    from busdoor_workloads.laws import PriorityClass
    from busdoor_workloads.streams import replication_seed, stream
    from busdoor_workloads.trace import Trace
    from busdoor_workloads.workload import Workload

_HOME = {
    **dict.fromkeys(
        ("preset", "preset_names", "profile", "profile_names", "resolve", "workload_from_table"),
        "catalog",
    ),
    "Laws": "laws",
    "PriorityClass": "laws",
    "Trace": "trace",
    "Workload": "workload",
    "generate_at": "generate",
    "replication_seed": "streams",
    "stream": "streams",
    "workload_names": "catalog",
}

__all__ = [
    "PriorityClass",
    "Trace",
    "Workload",
    "preset",
    "preset_names",
    "profile",
    "profile_names",
    "replication_seed",
    "resolve",
    "stream",
    "workload_from_table",
    "workload_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'busdoor_workloads' has no attribute {name!r}")
    return getattr(import_module(f"busdoor_workloads.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
