"""Configurations: one TOML schema for every command."""

from busdoor.config.policy import PolicyTable, parse_policy
from busdoor.config.study import DEFAULT_POLICIES, Config, load_config, merge, parse_config
from busdoor.config.tables import SLO, GPUTable, KVTable, parse_seconds
from busdoor.config.toml import Document, read_toml
from busdoor.config.workload import WorkloadTable

__all__ = [
    "DEFAULT_POLICIES",
    "SLO",
    "Config",
    "Document",
    "GPUTable",
    "KVTable",
    "PolicyTable",
    "WorkloadTable",
    "load_config",
    "merge",
    "parse_config",
    "parse_policy",
    "parse_seconds",
    "read_toml",
]
