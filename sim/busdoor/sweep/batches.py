"""Hand out tasks in batches that are worth a message, and know which are out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from math import ceil

from busdoor.sweep.task import Record, Task, run_batch

# A message to a worker and back costs milliseconds; of a second's work that is below a per cent.
LEAST_BATCH_S = 1.0
# points whose durations predict the next ones': sweeps often go from cheap to dear ones
_REMEMBERED = 32
_QUEUED = 2  # batches per worker that are out: one that runs, and one that waits for it to be done

Submit = Callable[..., "Future[list[Record]]"]


class WorkerDiedError(RuntimeError):
    """A process was killed while it had batches; which of them did it, if any, is unknown."""


def run_batches(
    submit: Submit,
    width: int,
    batches: Iterable[list[Task]],
    run: Callable[[list[Task]], list[Record]] = run_batch,
) -> Iterator[list[Record]]:
    """Submit batches to an executor of `width` workers; yield records as they are done.

    The next batch is asked for when one is done, so that its size can follow from the durations so
    far.
    """
    source = iter(batches)
    out = {submit(run, batch) for batch in islice(source, _QUEUED * width)}
    try:
        while out:
            done, out = wait(out, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            out |= {submit(run, batch) for batch in islice(source, len(done))}
    finally:
        for future in out:
            future.cancel()


class Batches:
    """Tasks in batches. The first are single points; they show how many of them make `least_s`.

    >>> batches = Batches([(key, {}) for key in "abcdef"], least_s=1.0)
    >>> handed_out = iter(batches)
    >>> next(handed_out)
    [('a', {})]
    >>> batches.done([Record("a", duration_s=0.4)])
    >>> [key for key, _ in next(handed_out)], len(batches)
    (['b', 'c', 'd'], 5)
    >>> [key for key, _ in batches.take_out()], len(batches)   # a worker has died: these were out
    (['b', 'c', 'd'], 2)
    """

    def __init__(self, tasks: Iterable[Task], least_s: float = LEAST_BATCH_S) -> None:
        self._waiting = deque(tasks)
        self._out: dict[str, Task] = {}
        self._durations_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._least_s = least_s

    def __iter__(self) -> Iterator[list[Task]]:
        """Hand out until nothing waits."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(self._size())]
            self._out.update({task[0]: task for task in batch})
            yield batch

    def __len__(self) -> int:
        """Tasks that are not done."""
        return len(self._waiting) + len(self._out)

    def done(self, records: Iterable[Record]) -> None:
        """Note what has come back."""
        for record in records:
            self._out.pop(record.key, None)
            self._durations_s.append(record.duration_s)

    def take_out(self) -> list[Task]:
        """Remove and return those that were handed out and did not come back."""
        tasks = list(self._out.values())
        self._out.clear()
        return tasks

    def _size(self) -> int:
        durations = list(self._durations_s)
        total_s = sum(durations)
        wanted = self._least_s * len(durations) / total_s if total_s > 0 else 1
        # of tasks that take no time, no number would do
        return ceil(min(wanted, len(self._waiting)))
