"""Where batches of points run: in this process, in processes beside it, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
from asyncio import CancelledError as TaskCancelled
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from threading import Thread

from busdoor.core.interrupt import end_pool, ignore_sigint
from busdoor.sweep.batches import Submit, WorkerDiedError, run_batches
from busdoor.sweep.dask_cluster import cluster_executor, explained
from busdoor.sweep.task import Record, Task, run_batch

Execute = Callable[[Iterable[list[Task]]], Iterator[list[Record]]]


def require(*packages: str) -> None:
    """Raise ValueError if a package of the extra `sweep` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"a sweep needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed: pip install 'busdoor[sweep]'"
        )


@contextmanager
def workers(jobs: int, cluster: str | None) -> Iterator[Execute]:
    """Start the workers of a sweep, or connect to them.

    `jobs`: processes; 1 for this one, -1 for one per core. `cluster`: "local", or the address of a
    Dask scheduler; `jobs` are then the workers to expect, -1 for those that are there.

    What is yielded takes batches of tasks, one after the other as workers become free, and yields
    their records in the order in which they are done. It raises `WorkerDiedError` if a worker does
    and no other can take over.
    """
    if jobs == 0 or jobs < -1:
        raise ValueError(f"--jobs {jobs}: it must be 1 or more, or -1 for one per core")
    if cluster is not None:
        require("distributed")
        with cluster_executor(cluster, jobs) as (executor, width):
            yield partial(_on_cluster, executor.submit, width, cluster)
    elif jobs == 1:
        yield _inline
    else:
        yield partial(_in_processes, os.cpu_count() or 1 if jobs < 0 else jobs)


def _inline(batches: Iterable[list[Task]]) -> Iterator[list[Record]]:
    for batch in batches:
        for task in batch:
            yield run_batch([task])


def _in_processes(jobs: int, batches: Iterable[list[Task]]) -> Iterator[list[Record]]:
    """Run batches in their own pool: one broken by a dead process cannot be used again."""
    # a fork would copy the threads' locks of numpy and pyarrow
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    try:
        yield from run_batches(pool.submit, jobs, batches)
    except BrokenExecutor as error:
        raise WorkerDiedError(str(error)) from error
    finally:
        end_pool(pool)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: also where it is killed and cannot say so."""
    ignore_sigint()
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _on_cluster(
    submit: Submit, width: int, address: str, batches: Iterable[list[Task]]
) -> Iterator[list[Record]]:
    try:
        yield from run_batches(submit, width, batches)
    except (Exception, CancelledError, TaskCancelled) as error:
        raise explained(error, address) from error
