"""The servers of a long run, in this process or dealt to several."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.cluster.streamed import simulate_windows
from busdoor.config.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.policy import PolicyTable
from busdoor.config.run import replicas
from busdoor.config.windows import Windows
from busdoor.core.interrupt import end_pool, ignore_sigint
from busdoor.metrics.hourly import HourlyTotals
from busdoor.results.hourly import REQUESTS, RequestWriter
from busdoor.simulator.describe import utilisation
from busdoor.simulator.replica import Replica
from busdoor.simulator.system import Progress
from busdoor_workloads import Trace

_LOOK_EVERY_S = 0.5

Totals = Mapping[int, HourlyTotals]  # by number of the server


@dataclass(frozen=True)
class Share:
    """Which servers of a configuration one process runs, and where their requests go."""

    config: Config
    policy: PolicyTable
    own: tuple[int, ...]
    folder: Path
    exact: int


def servers_of(
    config: Config, policy: PolicyTable, windows: Windows
) -> tuple[Trace, Sequence[Replica]]:
    """Return the sample that settles the limits, and the servers within them."""
    if config.cluster is not None and config.cluster.disaggregated:
        raise ValueError(
            "[cluster] prefill and decode pools do not run window by window; leave out --stream"
        )
    sample = windows.sample
    limits = limits_for(config, [sample])
    own = policy.capped(limits.max_output_tokens)
    pools = range(len(config.pools))
    return sample, [one for pool in pools for one in replicas(config, pool, own, sample, limits)]


def run_shares(
    parts: Sequence[Share], windows: Windows, progress: Progress | None
) -> tuple[Totals, float]:
    """Run every share, in this process if there is one; return the totals, and when it stopped."""
    total = windows.num_requests
    if len(parts) == 1:

        def report(num_left: int) -> None:
            if progress is not None:
                progress(min(num_left, total), total)

        return _serve(parts[0], report, lambda start_s: None)
    # a fork would copy the threads' locks of numpy and pyarrow
    context = multiprocessing.get_context("spawn")
    counts, stop = context.Array("q", len(parts)), context.Event()
    pool = ProcessPoolExecutor(
        len(parts), mp_context=context, initializer=_start, initargs=(counts, stop)
    )
    try:
        futures = [pool.submit(_serve_here, place, part) for place, part in enumerate(parts)]
        _watch(futures, stop, lambda: sum(counts[:]), total, progress)
        done = [future.result() for future in futures]
    finally:
        end_pool(pool)
    totals = {number: one for own, _ in done for number, one in own.items()}
    return totals, min(stopped_s for _, stopped_s in done)


def _watch(
    futures: Sequence[Future[Any]],
    stop: Event,
    num_left: Callable[[], int],
    total: int,
    progress: Progress | None,
) -> None:
    """Wait for every share; after an interruption each ends at its next window."""
    waiting = set(futures)
    while waiting:
        try:
            done, waiting = wait(waiting, timeout=_LOOK_EVERY_S)
            if progress is not None:
                progress(min(num_left(), total), total)
        except KeyboardInterrupt:
            stop.set()
            continue
        if any(future.exception() for future in done):
            return


_shared: dict[str, Any] = {}  # of a worker: what its parent reads, and what stops it


def _start(counts: Any, stop: Event) -> None:
    ignore_sigint()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of a batch system, which signals all processes
    _shared.update(counts=counts, stop=stop)


def _serve_here(place: int, share: Share) -> tuple[dict[int, HourlyTotals], float]:
    """Serve a share in a worker, which reports how many requests have left."""

    def report(num_left: int) -> None:
        _shared["counts"][place] = num_left

    def look(start_s: float) -> None:
        parent = multiprocessing.parent_process()
        if _shared["stop"].is_set() or (parent is not None and not parent.is_alive()):
            raise KeyboardInterrupt

    return _serve(share, report, look)


def _serve(
    share: Share, report: Callable[[int], None], look: Callable[[float], None]
) -> tuple[dict[int, HourlyTotals], float]:
    """Run a share's servers to the end, or until a KeyboardInterrupt; return their totals."""
    config = share.config
    windows = Windows(config)
    _, servers = servers_of(config, share.policy, windows)
    totals = {number: _totals(config, servers[number], share.exact) for number in share.own}
    writers = {
        number: RequestWriter(share.folder / REQUESTS / f"replica-{number:03}.parquet")
        for number in share.own
    }

    def sink(number: int, *tables: pd.DataFrame) -> None:
        writers[number].write(tables[0])
        totals[number].add(*tables)

    try:
        stopped_s = simulate_windows(
            windows,
            servers,
            {number: partial(sink, number) for number in share.own},
            "round_robin" if config.cluster is None else config.cluster.router,
            seed=config.seed,
            lookahead=config.lookahead,
            engine=config.engine,
            progress=report,
            at_window=look,
        )
    finally:
        for writer in writers.values():
            writer.close()
    for own in totals.values():
        own.finish()
    return totals, stopped_s


def _totals(config: Config, server: Replica, exact: int) -> HourlyTotals:
    return HourlyTotals(
        streams=server.policy.streams,
        slo_s=config.slo.per_request_s,
        block_size=server.block_size,
        num_blocks=int(getattr(getattr(server.policy, "kv", None), "num_blocks", 0)),
        exact=exact,
        utilisation=partial(utilisation, server.step_time),
    )
