"""Where the runs of a search are made: here, in processes that stay, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from busdoor.capacity.runs import processes
from busdoor.recommend.measure import measure_all
from busdoor.recommend.records import Execute
from busdoor.sweep.batches import run_batches
from busdoor.sweep.dask_cluster import cluster_executor
from busdoor.sweep.executors import require


class Workers(NamedTuple):
    """What makes a search's runs, and the processes of this machine, for studies; None without."""

    execute: Execute
    pool: ProcessPoolExecutor | None = None


@contextmanager
def executor(jobs: int, cluster: str | None) -> Iterator[Workers]:
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
                yield Workers(partial(run_batches, client.submit, workers, run=measure_all))
        elif width == 1:
            yield Workers(partial(map, measure_all))
        else:
            with processes(width) as pool:
                assert pool is not None  # of more than one
                yield Workers(partial(run_batches, pool.submit, width, run=measure_all), pool)
    except BrokenExecutor as error:
        raise ValueError(
            "a process of the search died: killed, or out of memory; the same command goes on from "
            "its folder"
        ) from error
