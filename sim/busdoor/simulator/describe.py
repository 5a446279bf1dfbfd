"""What a run was, as a result's meta keeps it, and how much of the GPUs it used."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from busdoor._version import __version__
from busdoor.policies.base import Policy
from busdoor.simulator.replica import Replica
from busdoor.step_time.base import StepTime
from busdoor.step_time.mfu import run_utilisation
from busdoor.step_time.roofline import RooflineStepTime
from busdoor_workloads import Trace


def describe_run(
    trace: Trace, policy: Policy, step_time: StepTime, lookahead: int
) -> dict[str, Any]:
    """Return what ran on one server, as a result's meta.json keeps it."""
    kv = getattr(policy, "kv", None)
    return {
        "policy": re.sub(
            r"(?<=.)(?=[A-Z])", "_", type(policy).__name__.removesuffix("Policy")
        ).lower(),
        "streams": policy.streams,
        "whole_batch": policy.whole_batch,
        "num_slots": policy.num_slots,
        "num_blocks": getattr(kv, "num_blocks", 0),
        "block_size": getattr(kv, "block_size", 1),
        "max_model_len": getattr(policy, "max_model_len", None),
        "step_time": step_time.describe(),
        "lookahead": lookahead,
        "trace": trace.name,
        "trace_metadata": dict(trace.metadata),
        "num_requests": len(trace),
        "trace_duration_s": trace.duration_s,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of busdoor, Python and the packages that the numbers depend on."""
    return dict(_versions())


@cache  # milliseconds to look up, for every server of a cluster
def _versions() -> dict[str, str]:
    found = {"busdoor": __version__, "python": platform.python_version()}
    for name in ("simpy", "numpy", "pandas"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def mean_utilisation(
    replicas: Sequence[Replica], iterations: Sequence[pd.DataFrame]
) -> dict[str, float]:
    """Return MFU and MBU of busy server time; nothing if a step time knows no GPU."""
    shares = [
        utilisation(replica.step_time, table)
        for replica, table in zip(replicas, iterations, strict=True)
    ]
    busy_s = np.array([table["duration_s"].sum() for table in iterations])
    if not busy_s.any() or any(
        not share and busy for share, busy in zip(shares, busy_s, strict=True)
    ):
        return {}
    weights = busy_s / busy_s.sum()
    known = [(weight, share) for weight, share in zip(weights, shares, strict=True) if share]
    return {
        key: float(sum(weight * share[key] for weight, share in known)) for key in ("mfu", "mbu")
    }


def utilisation(step_time: StepTime, iterations: pd.DataFrame) -> dict[str, float]:
    """Return MFU and MBU of one server's iterations; nothing if the step time knows no GPU."""
    if not isinstance(step_time, RooflineStepTime) or not len(iterations):
        return {}
    return run_utilisation(step_time, iterations)._asdict()
