"""Where the runs of a search are made: here, in processes that stay, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial

from busdoor.capacity.runs import processes
from busdoor.recommend.measure import Job, measure_all
from busdoor.sweep.batches import run_batches
from busdoor.sweep.dask_cluster import cluster_executor
from busdoor.sweep.executors import require
from busdoor.sweep.task import Record

Execute = Callable[[Iterable[list[Job]]], Iterable[list[Record]]]


@contextmanager
def executor(jobs: int, cluster: str | None) -> Iterator[Execute]:
    """Start or connect to the workers, as for a sweep; they stay for the whole search.

    Parameters
    ----------
    jobs : int
        Processes; 1 for this one, -1 for one per core.
    cluster : str or None
        "local", or the address of a Dask scheduler.

    Raises
    ------
    ValueError
        If a process died: killed, or out of memory.
    """
    if jobs == 0 or jobs < -1:
        raise ValueError(f"--jobs {jobs}: it must be 1 or more, or -1 for one per core")
    width = os.cpu_count() or 1 if jobs < 0 else jobs
    try:
        if cluster is not None:
            require("distributed")
            with cluster_executor(cluster, jobs) as (client, workers):
                yield partial(run_batches, client.submit, workers, run=measure_all)
        elif width == 1:
            yield partial(map, measure_all)
        else:
            with processes(width) as pool:
                assert pool is not None  # of more than one
                yield partial(run_batches, pool.submit, width, run=measure_all)
    except BrokenExecutor as error:
        raise ValueError(
            "a process of the search died: killed, or out of memory; the same command goes on from "
            "its folder"
        ) from error
