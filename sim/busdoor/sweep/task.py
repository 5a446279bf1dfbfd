"""What a worker does: run points, and say what came of each."""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.cluster.per_replica import imbalance
from busdoor.config import Config, WorkloadTable
from busdoor.config.energy import hours_per_million_tokens
from busdoor.config.limits import check_sizes, limits_for, servable
from busdoor.config.run import run
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares
from busdoor_workloads import Trace

Task = tuple[str, Mapping[str, Any]]  # a point's key and its configuration

# kept by a worker: points in a row mostly share theirs, and reading a large file takes seconds
_WORKLOADS = 4


@dataclass(frozen=True)
class Record:
    """What came of a point.

    Parameters
    ----------
    key : str
        The point's.
    metrics : dict of str to list of float
        Summary metrics, one value per replication; empty if it failed.
    error : str
        Why it failed, in a sentence; empty if it did not.
    traceback : str
        Where it failed.
    duration_s : float
        Seconds that it took.
    finished_at_s : float
        When, in Unix time.
    worker : str
        Host and process that ran it.
    """

    key: str
    metrics: Mapping[str, list[float]] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""
    duration_s: float = 0.0
    finished_at_s: float = 0.0
    worker: str = ""


def run_batch(tasks: Sequence[Task]) -> list[Record]:
    """Run points one after the other, in this process."""
    return [run_task(*task) for task in tasks]


def run_task(key: str, table: Mapping[str, Any]) -> Record:
    """Run a point: a configuration with one policy; what goes wrong in it becomes its record.

    >>> workload = {"name": "azure-conv", "num_requests": 20, "request_rate": 4.0}
    >>> record = run_task("a", {"workload": workload, "policy": "vllm", "replications": 2})
    >>> record.metrics["completed"], record.error
    ([20.0, 20.0], '')
    >>> run_task("b", {"policy": "vlm"}).error
    "[policy] name: 'vlm' is not a policy; did you mean 'vllm'? (known: ...)"
    """
    began_s = time.perf_counter()
    try:
        said: dict[str, Any] = {"metrics": run_point(table)}
    # whatever a policy of the user's own may raise: the other points go on
    except Exception as error:
        sentence = (
            str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        )
        said = {"error": sentence or type(error).__name__, "traceback": traceback.format_exc()}
    worker = f"{platform.node()}:{os.getpid()}"
    return Record(
        key,
        **said,
        duration_s=time.perf_counter() - began_s,
        finished_at_s=time.time(),
        worker=worker,
    )


def run_point(table: Mapping[str, Any]) -> dict[str, list[float]]:
    """Run all replications of a configuration with one policy.

    Returns `Result.summary` (times in ms where the key says so), one value per replication; for
    every limit of [slo] the share of requests within it, `slo_met`, and what a million output
    tokens cost if the GPU has a price.
    """
    config = Config.from_table(table)
    (policy,) = config.policies
    check_sizes(config)
    traces = _draw(config)
    limits = limits_for(config, (servable(config, trace) for trace in traces))
    rows = [
        _summary(config, run(config, policy, trace, limits, meta={"replication": replication}))
        for replication, trace in enumerate(traces)
    ]
    return {key: [float(row[key]) for row in rows] for key in rows[0].index}


def _draw(config: Config) -> list[Trace]:
    """Draw the replications' traces. With the same seed they are the same at every point."""
    file = config.workload.path
    changed_ns = Path(file).stat().st_mtime_ns if file else 0
    workload = _workload(json.dumps(config.workload.to_dict(), default=str), changed_ns)
    return [workload.trace(config.seed, replication) for replication in range(config.replications)]


@lru_cache(maxsize=_WORKLOADS)
def _workload(text: str, changed_ns: int) -> WorkloadTable:
    """Return a workload whose file has been read, if a point before had the same."""
    return WorkloadTable.from_table(json.loads(text))


def _summary(config: Config, result: Result) -> pd.Series[Any]:
    about = {"num_slots": result.meta["num_slots"], "num_blocks": result.meta["num_blocks"]}
    if config.cluster is not None:
        about["imbalance"] = imbalance(result)
    kept = slo_shares(result, config.slo) if config.slo else pd.Series(dtype=object)
    return pd.concat([pd.Series(about), result.summary, kept, _cost(config, result)])


def _cost(config: Config, result: Result) -> pd.Series[Any]:
    price = config.price_per_hour
    if price is None:
        return pd.Series(dtype=object)
    hours = hours_per_million_tokens(float(result.summary["output_throughput"]))
    return pd.Series({"cost_per_million_output_tokens": price * hours}, dtype=object)
