"""Who runs the batches: this process, processes beside it, or a Dask cluster; joblib is in charge of both latter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from importlib.util import find_spec

from busdoor.core.interrupt import end_processes, ignore_sigint
from busdoor.sweep.task import Record, Task, run_batch

IDLE_S = 30  # then a process without work ends: also if we were killed, and no work will come
Execute = Callable[[Iterable[list[Task]]], Iterator[list[Record]]]


class WorkerDiedError(RuntimeError):
    """A process was killed while it had batches; which of them killed it, if one did, is not known."""


def require(*packages: str) -> None:
    """Raise ValueError if a package of the extra `sweep` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"a sweep needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'busdoor[sweep]'"
        )


@contextmanager
def workers(jobs: int, cluster: str | None) -> Iterator[Execute]:
    """Get workers ready.

    Parameters
    ----------
    jobs : int
        Processes; 1 for this one, -1 for one a core. On a running cluster: how many workers to expect, -1 for those
        that are there.
    cluster : str or None
        "local", or the address of a Dask scheduler.

    Yields
    ------
    callable
        Takes batches of tasks, one after the other as workers become free, and yields their records in the order in
        which they are done. Raises `WorkerDiedError` if a worker does and nobody can take over.
    """
    if jobs == 0 or jobs < -1:
        raise ValueError(f"--jobs {jobs}: it has to be 1 or more, or -1 for one a core")
    if cluster is not None:
        require("joblib", "distributed")
        from busdoor.sweep.executors import cluster_workers

        with cluster_workers(cluster, jobs) as execute:
            yield execute
    elif jobs == 1:
        yield _inline
    else:
        require("joblib")
        try:
            yield lambda batches: _processes(batches, jobs)
        except BaseException:
            _end()
            raise


def _inline(batches: Iterable[list[Task]]) -> Iterator[list[Record]]:
    for batch in batches:
        for task in batch:
            yield run_batch([task])


def _processes(batches: Iterable[list[Task]], jobs: int) -> Iterator[list[Record]]:
    from joblib import Parallel, delayed, parallel_config

    try:
        with parallel_config("loky", idle_worker_timeout=IDLE_S, initializer=ignore_sigint):
            # One task a batch: ours are made to measure already.
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        yield from parallel(delayed(run_batch)(batch) for batch in batches)
    except BrokenExecutor as error:
        raise WorkerDiedError(str(error)) from error


def _end() -> None:
    """End joblib's processes, which would finish what they are at and then wait for more."""
    from joblib.externals.loky import reusable_executor

    pool = reusable_executor._executor
    if pool is not None:
        there = list((pool._processes or {}).values())
        pool.shutdown(wait=False, kill_workers=True)
        end_processes(there)
