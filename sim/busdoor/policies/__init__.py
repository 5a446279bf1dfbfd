"""Policies: which requests run in the next iteration.

A policy is named in a configuration by a name of `POLICIES`, or by the import path of your own
subclass of `Policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from busdoor.core.registry import Registry, checked, is_import_path
from busdoor.policies.base import KVUse, Policy
from busdoor.policies.config import BUILDERS, ImportedPolicy, PolicyConfig
from busdoor.policies.continuous_config import (
    OrcaConfig,
    PrefillFirstConfig,
    TgiConfig,
    TransformersConfig,
    TrtllmConfig,
    VllmConfig,
)
from busdoor.policies.dynamic import DynamicPolicy
from busdoor.policies.multi_bin import MultiBinPolicy
from busdoor.policies.orca import OrcaPolicy
from busdoor.policies.prefill_first import PrefillFirstPolicy
from busdoor.policies.reserving import ReservingPolicy
from busdoor.policies.static import StaticPolicy
from busdoor.policies.tgi import TgiPolicy
from busdoor.policies.transformers import TransformersPolicy
from busdoor.policies.trtllm import (
    GuaranteedNoEvictPolicy,
    InFlightPolicy,
    MaxUtilizationPolicy,
    in_flight_policy,
)
from busdoor.policies.vllm import VllmPolicy
from busdoor.policies.whole_batch_config import DynamicConfig, MultiBinConfig, StaticConfig

BUILDERS.update(
    {
        StaticConfig: StaticPolicy,
        DynamicConfig: DynamicPolicy,
        MultiBinConfig: MultiBinPolicy,
        OrcaConfig: OrcaPolicy,
        VllmConfig: VllmPolicy,
        PrefillFirstConfig: PrefillFirstPolicy,
        TgiConfig: TgiPolicy,
        TransformersConfig: TransformersPolicy,
        TrtllmConfig: in_flight_policy,
    }
)

POLICIES: Registry[Callable[..., PolicyConfig]] = Registry(
    "a policy", Policy, {config.name: config for config in BUILDERS}
)

__all__ = [
    "POLICIES",
    "DynamicConfig",
    "DynamicPolicy",
    "GuaranteedNoEvictPolicy",
    "ImportedPolicy",
    "InFlightPolicy",
    "KVUse",
    "MaxUtilizationPolicy",
    "MultiBinConfig",
    "MultiBinPolicy",
    "OrcaConfig",
    "OrcaPolicy",
    "Policy",
    "PolicyConfig",
    "PrefillFirstConfig",
    "PrefillFirstPolicy",
    "ReservingPolicy",
    "StaticConfig",
    "StaticPolicy",
    "TgiConfig",
    "TgiPolicy",
    "TransformersConfig",
    "TransformersPolicy",
    "TrtllmConfig",
    "VllmConfig",
    "VllmPolicy",
    "policy_config",
]


def policy_config(name: str, **fields: Any) -> PolicyConfig:
    """Check the settings of a policy, as the table [policy] of a configuration says.

    Parameters
    ----------
    name : str
        A name of `POLICIES`, or "package.module:Name" of a subclass of `Policy` that takes a
        `KVConfig` and the fields.
    **fields
        The policy's own.

    Returns
    -------
    PolicyConfig
        Its `build(kv, trace)` makes the policy.

    Raises
    ------
    ValueError
        If the name is not known or a field is wrong, in one sentence.

    Examples
    --------
    >>> policy_config("static", batch_size=8).batch_size
    8
    >>> policy_config("vlm")
    Traceback (most recent call last):
    ValueError: 'vlm' is not a policy; did you mean 'vllm'? (known: ...)
    >>> policy_config("vllm", max_num_seq=8)
    Traceback (most recent call last):
    ValueError: [policy]: 'max_num_seq' is not a field of it; did you mean 'max_num_seqs'? (known: ...)
    """
    if is_import_path(name):
        return ImportedPolicy(name, fields)
    return checked(POLICIES.find(name), fields, "[policy]")
