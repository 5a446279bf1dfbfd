"""From configuration to a long run: requests go to disk, hours to tables, servers to processes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from shutil import disk_usage
from typing import Any

import pandas as pd

from busdoor.cluster.simulate import describe_cluster
from busdoor.cluster.streamed import is_independent
from busdoor.config import Config, PolicyTable
from busdoor.config.run import described
from busdoor.config.streamed_processes import Share, Totals, run_shares, servers_of
from busdoor.config.windows import Windows
from busdoor.metrics.hourly_tables import hours_table, joined_totals, summarize_totals
from busdoor.metrics.sketch import EXACT
from busdoor.results.hourly import (
    REQUEST_FILE_BYTES,
    REQUESTS,
    HourlyResult,
    check_pyarrow,
)
from busdoor.simulator.replica import Replica
from busdoor.simulator.system import Progress
from busdoor_workloads import Trace
from busdoor_workloads.memory_check import check_memory, gib

# Of a process: Python and its packages; of each request of two windows; and of each that is one
# server's own, while its iterations are summed: measured at 60,000 of azure-conv, 639 MiB in all.
PROCESS_BYTES, WINDOW_BYTES, OWN_BYTES = 250e6, 300, 7000


def run_streamed(
    config: Config,
    policy: PolicyTable,
    folder: Path,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> HourlyResult:
    """Run a configuration of one server or several replicas, a window at a time, into a folder.

    Parameters
    ----------
    config, policy : Config, PolicyTable
        What to run; the policy is one of the configuration's.
    folder : Path
        Where `requests/` goes, a Parquet file per server, and the other tables.
    jobs : int
        Processes, where the router assigns requests without a look at the servers; the tables do
        not depend on it.
    progress : callable, optional
        Called now and then with the number of requests that have left, and of all.

    Returns
    -------
    HourlyResult
        After a KeyboardInterrupt what was done until then, with `complete` false in its meta.

    Raises
    ------
    ValueError
        The workload cannot be drawn in windows, memory or disk do not suffice, pyarrow is not
        there, or prefill and decode run on different servers.
    """
    check_pyarrow()
    windows = Windows(config)
    sample, servers = servers_of(config, policy, windows)
    router = "round_robin" if config.cluster is None else config.cluster.router
    shares = min(jobs, len(servers)) if is_independent(router, len(servers)) else 1
    own = [tuple(range(first, len(servers), shares)) for first in range(shares)]
    _check_room(windows, len(own), folder)
    (folder / REQUESTS).mkdir(parents=True, exist_ok=True)
    exact = EXACT if windows.num_requests <= EXACT else 0
    parts = [Share(config, policy, numbers, folder, exact) for numbers in own]
    totals, stopped_s = run_shares(parts, windows, progress)
    return _result(config, policy, folder, sample, servers, totals, exact, stopped_s)


def _check_room(windows: Windows, num_processes: int, folder: Path) -> None:
    """Raise ValueError if memory or disk do not suffice."""
    what = f"a run of {windows.num_requests:,} requests in windows of up to {windows.most:,.0f}"
    own = OWN_BYTES * windows.most / windows.num_servers
    check_memory(num_processes * (PROCESS_BYTES + WINDOW_BYTES * windows.most + own), what)
    files = windows.num_requests * REQUEST_FILE_BYTES
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = disk_usage(place).free
    if files > free:
        raise ValueError(
            f"{what} writes {gib(files)} GiB, and the disk of {place} has {gib(free)} GiB free; "
            f"ask for less, or choose another --out"
        )


def _result(
    config: Config,
    policy: PolicyTable,
    folder: Path,
    sample: Trace,
    servers: Sequence[Replica],
    totals: Totals,
    exact: int,
    stopped_s: float,
) -> HourlyResult:
    """Put the tables and the description of a run together, and write them."""
    whole = joined_totals([totals[number] for number in sorted(totals)], exact)
    capacity_rps = sum(one.policy.capacity_rps(sample, one.step_time) for one in servers)
    span_s = max(whole.last_arrival_s - whole.first_s, 1e-9)
    meta: dict[str, Any] = {
        **describe_cluster(sample, servers, config.lookahead),
        **described(config, policy),
        "complete": stopped_s == inf,
        **({} if stopped_s == inf else {"stopped_s": stopped_s}),
        "num_requests": whole.num_requests,
        "trace_duration_s": span_s,
        "capacity_rps": capacity_rps,
        "offered_load": whole.num_requests / span_s / capacity_rps,
        **({} if config.engine is None else {"engine": config.engine.title}),
    }
    by_replica = [hours_table(totals[number]).assign(replica=number) for number in sorted(totals)]
    result = HourlyResult(
        hours_table(whole, len(servers)),
        pd.concat(by_replica, ignore_index=True),
        summarize_totals(whole, meta),
        meta,
        folder,
    )
    result.write(folder)
    return result
