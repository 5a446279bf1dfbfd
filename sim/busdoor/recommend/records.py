"""Records of a search's runs: kept ones are read, the others made and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from busdoor.recommend.measure import Job
from busdoor.sweep.store import Store
from busdoor.sweep.task import Record

Execute = Callable[[Iterable[list[Job]]], Iterable[list[Record]]]


@dataclass
class Records:
    """Records of runs, each read or made once.

    Parameters
    ----------
    execute : callable
        Makes runs; yields lists of records as they are done.
    store : Store
        Keeps them.

    Attributes
    ----------
    num_runs, num_requests : int
        Everything that was simulated, kept runs of an earlier study included.
    """

    execute: Execute
    store: Store
    num_runs: int = field(default=0, init=False)
    num_requests: int = field(default=0, init=False)
    _known: dict[str, Record] = field(default_factory=dict, init=False)

    def of(self, jobs: Sequence[Job]) -> list[Record]:
        """Return a record per job, in order."""
        todo = {key: job for key, job in jobs if key not in self._known}
        kept = self.store.read_all(todo)
        self._count(kept.values(), todo)
        batches = [[(key, job)] for key, job in todo.items() if key not in kept]
        for records in self.execute(batches) if batches else ():
            for record in records:
                self.store.write(record)
            self._count(records, todo)
        return [self._known[key] for key, _ in jobs]

    def _count(self, records: Iterable[Record], jobs: Mapping[str, Mapping[str, int]]) -> None:
        for record in records:
            self._known[record.key] = record
            self.num_runs += 1
            self.num_requests += jobs[record.key]["num_requests"]
