"""Configurations: one TOML schema for every command."""

from busdoor.config.cluster import ClusterTable, PoolTable
from busdoor.config.config import Config, load_config, parse_config
from busdoor.config.merge import merge, override
from busdoor.config.policy import DEFAULT_POLICIES, PolicyTable, parse_policy
from busdoor.config.server_tables import GPUTable, KVTable
from busdoor.config.workload import WorkloadTable
from busdoor.core.toml import Document, read_toml
from busdoor.core.units import parse_seconds
from busdoor.metrics.slo import SLO

__all__ = [
    "DEFAULT_POLICIES",
    "SLO",
    "ClusterTable",
    "Config",
    "Document",
    "GPUTable",
    "KVTable",
    "PolicyTable",
    "PoolTable",
    "WorkloadTable",
    "load_config",
    "merge",
    "override",
    "parse_config",
    "parse_policy",
    "parse_seconds",
    "read_toml",
]
