"""Workloads: lengths, arrival processes, traces and profiles of public traces."""

from busdoor_workloads.catalog import (
    preset,
    preset_names,
    profile,
    profile_names,
    resolve,
    workload_from_table,
    workload_names,
)
from busdoor_workloads.laws import PriorityClass
from busdoor_workloads.streams import replication_seed, stream
from busdoor_workloads.trace import Trace
from busdoor_workloads.workload import Workload

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
