"""Running a sweep: what is missing is run, what is finished is kept, come what may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from busdoor.core.progress import Report
from busdoor.html.notebook import notebook_progress
from busdoor.sweep.batches import Batches, WorkerDiedError
from busdoor.sweep.executors import Execute, require, workers
from busdoor.sweep.plan import Point
from busdoor.sweep.store import Store
from busdoor.sweep.table import Sweep
from busdoor.sweep.task import Record, Task

_DIED = (
    "the process that ran it died, and died again when it ran it alone: killed, or out of memory"
)


def run_sweep(
    points: Sequence[Point],
    folder: str | Path,
    *,
    jobs: int = -1,
    cluster: str | None = None,
    report: Report | None = None,
) -> Sweep:
    """Run the points of a sweep that are not finished yet.

    Parameters
    ----------
    points : sequence of Point
        As `plan` or `load_plan` give them.
    folder : str or Path
        For the records: points/KEY.parquet, each written when its point is done. Finished ones are
        not run again; failed ones are.
    jobs : int
        Processes; 1 for this one alone, -1 for one per core. On a running cluster: how many workers
        to expect, -1 for those that are there.
    cluster : str, optional
        A Dask cluster in place of processes: "local", or a scheduler's address such as
        "tcp://10.0.0.5:8786".
    report : callable, optional
        Called with progress; in a notebook it is a bar unless given.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        One sentence, if the workers cannot be had. What goes wrong in a point is in its record
        instead.

    Examples
    --------
    >>> import tempfile
    >>> from busdoor.sweep import plan
    >>> workload = {"name": "azure-conv", "num_requests": 20}
    >>> points = plan({"workload": workload, "policy": "vllm", "replications": 1,
    ...                "sweep": {"workload.request_rate": [1.0, 9.0], "gpu.name": ["h100", "rtx-4090"]}})
    >>> table = run_sweep(points, tempfile.mkdtemp(), jobs=1).table
    >>> table[["workload.request_rate", "gpu.name", "status", "completed"]]
       workload.request_rate  gpu.name status  completed
    0                    1.0      h100   done       20.0
    1                    1.0  rtx-4090   done       20.0
    2                    9.0      h100   done       20.0
    3                    9.0  rtx-4090   done       20.0
    """
    require("pyarrow")
    store = Store(Path(folder) / "points")
    kept = store.read_all(point.key for point in points)
    finished = {key for key, record in kept.items() if not record.error}
    todo = {point.key: point for point in points if point.key not in finished}
    tasks = [(point.key, point.table) for point in todo.values() if not point.error]
    with notebook_progress(report) as shown:
        keep = _keeper(store, len({point.key for point in points}), len(finished), shown)
        keep([Record(point.key, error=point.error) for point in todo.values() if point.error])
        if tasks:
            with workers(jobs, cluster) as execute:
                work(execute, tasks, keep)
    return Sweep.load(points, folder)


def work(execute: Execute, tasks: Sequence[Task], keep: Callable[[list[Record]], None]) -> None:
    """Run tasks, each once; those that a worker had when it died are run one by one."""
    batches = Batches(tasks)
    while len(batches):
        try:
            for records in execute(batches):
                batches.done(records)
                keep(records)
        except WorkerDiedError:
            pass
        for task in batches.take_out():
            keep([_alone(execute, task)])


def _alone(execute: Execute, task: Task) -> Record:
    """Run the task that may have killed its worker alone, where it can harm no other."""
    try:
        for records in execute([[task]]):
            return records[0]
    except WorkerDiedError:
        pass
    return Record(task[0], error=_DIED)


def _keeper(
    store: Store, total: int, done: int, report: Report | None
) -> Callable[[list[Record]], None]:
    count = done

    def keep(records: list[Record]) -> None:
        nonlocal count
        for record in records:
            store.write(record)
        count += len(records)
        if report and total:
            report(count / total, f"{count:,} of {total:,} points")

    return keep
