"""Configurations: one TOML schema for every command."""

from busdoor.config.cluster import ClusterTable, PoolTable
from busdoor.config.merge import merge, override
from busdoor.config.policy import DEFAULT_POLICIES, PolicyTable, parse_policy
from busdoor.config.slo import SLO
from busdoor.config.study import Config, load_config, parse_config
from busdoor.config.tables import GPUTable, KVTable, parse_seconds
from busdoor.config.toml import Document, read_toml
from busdoor.config.workload import WorkloadTable

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
