"""Dask clusters: connecting, checking what is on the workers, and joblib's backend for them."""

from __future__ import annotations

import os
import re
import signal
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, KilledWorker, LocalCluster
from joblib import Parallel, delayed, parallel_config
from joblib._dask import DaskDistributedBackend

from busdoor._version import __version__
from busdoor.sweep.task import Record, Task, run_batch
from busdoor.sweep.workers import Execute, WorkerDiedError

CONNECT_S = 3.0  # a scheduler that lives answers in milliseconds, over a tunnel in a second
FIRST_WORKER_S = 30.0  # a container that is already there starts in less; queues of a batch system take hours anyway
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://.+:\d+")


@contextmanager
def cluster_workers(address: str, jobs: int) -> Iterator[Execute]:
    """Connect to a cluster, or start one on this machine.

    Parameters
    ----------
    address : str
        "local", or a scheduler's address.
    jobs : int
        Workers to expect, -1 for those that are there; of a local cluster, workers to start, -1 for one a core.

    Raises
    ------
    ValueError
        If nobody answers, there is no worker, or they have another busdoor.
    """
    with connect(address, jobs) as client:
        check_workers(client, address)
        backend = Backend(client, jobs)

        def execute(batches: Iterable[list[Task]]) -> Iterator[list[Record]]:
            try:
                with parallel_config(backend=backend):
                    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
                    yield from parallel(delayed(run_batch)(batch) for batch in batches)
                backend.raise_error()
            except (Exception, CancelledError) as error:
                raise _explained(error, address) from error

        yield execute


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
        raise ValueError(f"--cluster {address}: it has to be local, or a scheduler's address as in tcp://10.0.0.5:8786")
    try:
        client = _client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {address} within {CONNECT_S:g} s; is it running, and can it be reached?"
        ) from error
    with client:
        yield client


def _local(count: int) -> Any:
    start: Any = LocalCluster  # untyped
    return start(n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)


def _end(cluster: Any) -> None:
    """Kill the workers of a cluster that was started here: closing it waits for what they are at."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has none


def _client(cluster: Any, **options: Any) -> Any:
    start: Any = Client  # untyped
    return start(cluster, set_as_default=False, **options)


def check_workers(client: Any, address: str) -> None:
    """Raise ValueError unless there are workers and all have this version of busdoor."""
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError as error:
        raise ValueError(
            f"the cluster at {address} has no worker after {FIRST_WORKER_S:g} s; start one: dask worker {address}"
        ) from error
    try:
        versions = client.run(worker_version)
    except Exception as error:
        raise ValueError(
            f"a worker of {address} cannot run busdoor ({_first_line(error)}); install busdoor {__version__} there"
        ) from error
    for worker, version in versions.items():
        if version != __version__:
            raise ValueError(f"worker {worker} has busdoor {version}, not {__version__} as here; install the same")


def worker_version() -> str:
    """Return the version of busdoor, wherever this runs."""
    return __version__


def _explained(error: BaseException, address: str) -> Exception:
    """Tell a worker's death, which others get over, from the end of everything."""
    if isinstance(error, KilledWorker):
        return WorkerDiedError(str(error))
    said = _first_line(error)
    return ValueError(f"the cluster at {address} gave up ({said}); finished points are kept, so that you can go on")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


class Backend(DaskDistributedBackend):  # type: ignore[misc]
    """joblib's Dask backend, but for tasks that are lost.

    joblib's own (1.6) never hears of a task whose workers have died too often, or that was cancelled because the
    scheduler is gone, and waits for ever. Here such a task ends as an error. (It may then end the iteration over the
    results before the error is there to be raised, wherefore `raise_error`.)

    Parameters
    ----------
    client : Client
        Of the cluster.
    jobs : int
        Workers to expect; -1 for those that are there.
    """

    def __init__(self, client: Any, jobs: int) -> None:
        super().__init__(client=client)
        self._jobs = jobs
        self._futures: set[Any] = set()
        self._error: BaseException | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Number of workers to keep busy; with one, joblib would run everything in this process."""
        there: int = sum(self.client.ncores().values())
        return max(self._jobs, there, 2)

    def start_call(self) -> None:
        """Forget what went wrong before."""
        self._error = None

    def stop_call(self) -> None:
        """Nothing to tidy up."""

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Send a batch; `callback` gets its future when it is done, whatever came of it."""
        future = self.client.submit(run_items, func.items, pure=False)
        self._futures.add(future)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return what a batch gave, or raise what became of it."""
        self._futures.discard(out)
        try:
            return out.result()
        except BaseException as error:
            self._error = error
            raise

    def raise_error(self) -> None:
        """Raise what became of a batch that was lost, if one was."""
        if self._error is not None:
            raise self._error

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Let nobody start what has not begun."""
        self.client.cancel(list(self._futures), force=True)
        self._futures.clear()


def run_items(items: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Call what joblib has put into one task; runs on the worker."""
    return [function(*arguments, **named) for function, arguments, named in items]
