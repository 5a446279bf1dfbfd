"""Dask clusters: connect, check what is on the workers, and explain what went wrong."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from busdoor._version import __version__
from busdoor.sweep.batches import WorkerDiedError

CONNECT_S = 3.0  # a scheduler that lives answers in milliseconds, over a tunnel in a second
# a container that is already there starts in less; queues of a batch system take hours anyway
FIRST_WORKER_S = 30.0
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://.+:\d+")


@contextmanager
def cluster_executor(address: str, jobs: int) -> Iterator[tuple[Executor, int]]:
    """Connect to a cluster, or start one on this machine; yield where to submit, and its workers.

    `address` is "local" or a scheduler's; `jobs` the workers to expect, -1 for those that are
    there; of a local cluster, workers to start, -1 for one per core. Raises ValueError if no
    scheduler answers, there is no worker, or the workers have another busdoor.
    """
    with connect(address, jobs) as client:
        check_workers(client, address)
        executor = client.get_executor(pure=False)
        try:
            yield executor, max(jobs, sum(client.ncores().values()))
        finally:
            executor.shutdown(wait=False)


@contextmanager
def connect(address: str, jobs: int) -> Iterator[Any]:
    """Return a client of the cluster, which has a worker at least."""
    if address == "local":
        count = os.cpu_count() or 1 if jobs < 0 else jobs
        with _local(count) as cluster, _client(cluster) as client:
            try:
                yield client
            except BaseException:
                _end(cluster)
                raise
        return
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"--cluster {address}: it must be local, or a scheduler's address as in "
            f"tcp://10.0.0.5:8786"
        )
    try:
        client = _client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {address} within {CONNECT_S:g} s; is it running, and "
            f"can it be reached?"
        ) from error
    with client:
        yield client


def _local(count: int) -> Any:
    from distributed import LocalCluster

    start: Any = LocalCluster  # untyped
    return start(n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)


def _end(cluster: Any) -> None:
    """Kill the workers of a cluster started here: closing it waits for their work."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has none


def _client(cluster: Any, **options: Any) -> Any:
    from distributed import Client

    start: Any = Client  # untyped
    return start(cluster, set_as_default=False, **options)


def check_workers(client: Any, address: str) -> None:
    """Raise ValueError unless there are workers and all have this version of busdoor."""
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError as error:
        raise ValueError(
            f"the cluster at {address} has no worker after {FIRST_WORKER_S:g} s; start one: dask "
            f"worker {address}"
        ) from error
    try:
        versions = client.run(worker_version)
    except Exception as error:
        raise ValueError(
            f"a worker of {address} cannot run busdoor ({_first_line(error)}); install busdoor "
            f"{__version__} there"
        ) from error
    for worker, version in versions.items():
        if version != __version__:
            raise ValueError(
                f"worker {worker} has busdoor {version}, not {__version__} as here; install the "
                f"same"
            )


def worker_version() -> str:
    """Return the version of busdoor, wherever this runs."""
    return __version__


def explained(error: BaseException, address: str) -> Exception:
    """Return what failed: a worker, which the others survive, or the whole cluster."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerDiedError(str(error))
    reason = _first_line(error)
    return ValueError(
        f"the cluster at {address} gave up ({reason}); finished points are kept, so that you can "
        f"go on"
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
