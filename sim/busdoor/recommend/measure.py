"""One run of a candidate, as a worker makes it: what it says about each target of the SLO."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from busdoor.capacity.draws import unit_rate
from busdoor.capacity.estimate import readings
from busdoor.capacity.runs import Task, sample, saturated_rps
from busdoor.capacity.steady_state import Window, steady_window
from busdoor.config import Config
from busdoor.config.limits import limits_for, servable
from busdoor.sweep.task import Record
from busdoor_workloads import Trace

Job = tuple[str, Mapping[str, Any]]  # a run's key, and what `measure` needs for it
_TRACES = 32  # that a worker keeps: candidates in a row have the same


def measure_all(jobs: Sequence[Job]) -> list[Record]:
    """Make runs one after the other, in this process."""
    return [measure(*job) for job in jobs]


def measure(key: str, job: Mapping[str, Any]) -> Record:
    """Make a run; what goes wrong becomes its record.

    Parameters
    ----------
    key : str
        The run's name.
    job : mapping
        `table`, a configuration; `request_rate`; `num_requests`; `replication`; and `burst`, whether
        all requests are there from the start, so that only the saturated rate is measured.

    Returns
    -------
    Record
        For each target `KEY.risk` (of ten parts of the steady window), `KEY.value` and `KEY.ratio`;
        `steady`, `e2e_s` (mean), `latency_s` (the first target's); or `saturated_rps`.
    """
    began_s = time.perf_counter()
    try:
        metrics, error = _metrics(job), ""
    except ValueError as wrong:  # it does not fit
        metrics, error = {}, str(wrong)
    return Record(key, metrics, error, duration_s=time.perf_counter() - began_s)


def _metrics(job: Mapping[str, Any]) -> dict[str, list[float]]:
    config = _config(json.dumps(job["table"], default=str))
    own = json.dumps(config.workload.to_dict(), default=str)
    trace = _trace(own, config.seed, job["replication"], job["num_requests"])
    trace = servable(config, trace).scale_time(1 / job["request_rate"])
    limits = limits_for(config, [trace])
    task = Task(config, config.policies[0], trace, limits, config.slo.needs_gaps)
    if job["burst"]:
        return {"saturated_rps": [saturated_rps(task)]}
    seen = sample(task)
    e2e_s = seen.latencies_s["e2e"].to_numpy()
    window = steady_window(e2e_s[None], job["request_rate"])
    if not np.isfinite(e2e_s).any():
        window = Window(0, len(e2e_s), steady=False)
    metrics: dict[str, list[float]] = {"steady": [float(window.steady)]}
    for reading in readings([seen], config.slo.targets, window):
        metrics[f"{reading.key}.risk"] = reading.risks.tolist()
        metrics[f"{reading.key}.value"] = [reading.value]
        metrics[f"{reading.key}.ratio"] = [reading.ratio]
    finite = e2e_s[window.begin : window.end]
    metrics["e2e_s"] = [float(finite.mean()) if len(finite) else np.nan]
    return metrics


@lru_cache(_TRACES)
def _config(table: str) -> Config:
    return Config.from_table(json.loads(table))


@lru_cache(_TRACES)
def _trace(workload: str, seed: int, replication: int, num_requests: int) -> Trace:
    """Draw a replication at one request per second; a file's beginning."""
    table = {"workload": json.loads(workload), "seed": seed}
    config = Config.from_table(table)
    fixed = config.workload.path is not None
    unit = unit_rate(config, None if fixed else num_requests).workload
    trace = unit.trace(seed, replication)
    return trace.select(np.arange(min(num_requests, len(trace))))
