"""One result of several servers: their tables put together, and what the cluster was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import simpy

from busdoor.cluster.replica import Replica
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import describe_run, utilisation
from busdoor_workloads import Trace


def start_servers(
    env: simpy.Environment,
    replicas: Sequence[Replica],
    lookahead: int,
    step_by_step: bool,
    iterations: bool,
) -> tuple[list[Server], list[TableRecorder]]:
    """Make the servers of some replicas, each with a recorder of its own."""
    recorders = [TableRecorder(replica.policy, iterations, number) for number, replica in enumerate(replicas)]
    servers = [
        Server(
            env, replica.policy, replica.step_time, lookahead=lookahead, step_by_step=step_by_step, recorder=recorder
        )
        for replica, recorder in zip(replicas, recorders, strict=True)
    ]
    return servers, recorders


def policy_names(replicas: Sequence[Replica]) -> str:
    """Name the classes of the replicas' policies, each once."""
    return " + ".join(dict.fromkeys(type(replica.policy).__name__ for replica in replicas))


def join_tables(tables: Sequence[pd.DataFrame], order: Sequence[str]) -> pd.DataFrame:
    """Put tables of the same columns together, sorted."""
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(filled).sort_values(list(order), kind="stable", ignore_index=True)


def describe_cluster(
    trace: Trace, replicas: Sequence[Replica], lookahead: int, roles: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what ran, as a result's meta.json keeps it.

    `num_slots` and `num_blocks` are sums over the replicas; `replicas` says what each one was. Of policy, step time,
    block size and the longest request it says the first replica's, but the names of all policies.
    """
    runs = [describe_run(trace, replica.policy, replica.step_time, lookahead) for replica in replicas]
    own = ("policy", "streams", "whole_batch", "num_slots", "num_blocks", "block_size", "max_model_len", "step_time")
    parts = [
        {key: run[key] for key in own} | {"weight": replica.weight, **replica.about}
        for run, replica in zip(runs, replicas, strict=True)
    ]
    for part, role in zip(parts, roles or [], strict=False):
        part["role"] = role
    return runs[0] | {
        "policy": " + ".join(dict.fromkeys(run["policy"] for run in runs)),
        "streams": all(run["streams"] for run in runs),
        "whole_batch": all(run["whole_batch"] for run in runs),
        "num_slots": sum(run["num_slots"] for run in runs),
        "num_blocks": sum(run["num_blocks"] for run in runs),
        "num_replicas": len(replicas),
        "replicas": parts,
    }


def mean_utilisation(replicas: Sequence[Replica], iterations: Sequence[pd.DataFrame]) -> dict[str, float]:
    """MFU and MBU over the time that the servers were busy, where the step times know their GPUs."""
    shares = [utilisation(replica.step_time, table) for replica, table in zip(replicas, iterations, strict=True)]
    busy_s = np.array([table["duration_s"].sum() for table in iterations])
    if not busy_s.any() or any(not share and busy for share, busy in zip(shares, busy_s, strict=True)):
        return {}
    weights = busy_s / busy_s.sum()
    known = [(weight, share) for weight, share in zip(weights, shares, strict=True) if share]
    return {key: float(sum(weight * share[key] for weight, share in known)) for key in ("mfu", "mbu")}
