"""The study: the highest rate of every policy, static batching also at its best batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import RLock

from busdoor.capacity.answer import Answer
from busdoor.capacity.policy_search import Solver
from busdoor.capacity.runs import Runs, Spent
from busdoor.config import Config, PolicyTable
from busdoor.core.interrupt import end_pool
from busdoor.core.progress import Report
from busdoor.metrics.slo import SLO

_TRIES = 12  # rates that a search usually takes: what the progress bar expects
# while one row reads its runs, and another waits for its last one, a third uses the processes
_ROWS_AT_ONCE = 3


@dataclass
class Study:
    """A search that runs; its results can be read at any time, also after an interruption.

    Parameters
    ----------
    runs : Runs
        The server and the draws.
    slo : SLO
        What must be met.
    num_requests : int
        Of the first runs of each replication; they are doubled where they are too short to decide.
    max_doublings : int
        How often.
    tolerance : float
        Half of the bracket's width, as a share of the answer.
    report : callable
        Called with progress.

    Attributes
    ----------
    finished : bool
        Whether all rows are answered.
    """

    runs: Runs
    slo: SLO
    num_requests: int
    max_doublings: int
    tolerance: float
    report: Report = lambda share, what: None
    finished: bool = field(default=False, init=False)
    _answers: dict[int, Answer] = field(default_factory=dict, init=False)
    _tried: int = field(default=0, init=False)
    _lock: RLock = field(default_factory=RLock, init=False)

    def run(self) -> None:
        """Search for every policy; with processes for several at a time, to keep these busy.

        The results do not depend on that: every search has its own runs, on the same draws.
        """
        if self.runs.pool is None:
            for job in self._jobs():
                job()
        else:
            self._side_by_side(self.runs.pool)
        self.finished = True
        self.report(1.0, "done")

    def start(self, pool: ProcessPoolExecutor | None, report: Report | None) -> None:
        """Set where it runs and what is told about progress, before `run`."""
        self.runs.pool, self.report = pool, report or self.report

    @property
    def spent(self) -> Spent:
        """Runs and requests so far."""
        return self.runs.spent

    @property
    def servers(self) -> dict[str, Config]:
        """Which server a row is of: nothing where there is but one."""
        return {}

    @property
    def answers(self) -> list[Answer]:
        """Answers of the rows that are done, in the table's order."""
        with self._lock:
            return [answer for _, answer in sorted(self._answers.items())]

    @property
    def num_rows(self) -> int:
        """Rows of the finished table: four for the first static policy, one for any other."""
        policies = self.runs.config.policies
        return len(policies) + 3 * any(policy.name == "static" for policy in policies)

    def _side_by_side(self, pool: ProcessPoolExecutor) -> None:
        with ThreadPoolExecutor(_ROWS_AT_ONCE) as threads:
            rows = [threads.submit(job) for job in self._jobs()]
            try:
                for row in rows:
                    row.result()
            except BaseException:  # Ctrl-C comes here, to the first thread
                threads.shutdown(wait=False, cancel_futures=True)
                end_pool(pool)  # what the other rows wait for will not come
                raise

    def _jobs(self) -> Iterator[Callable[[], None]]:
        """Yield the searches in the table's order; static's default and its best together."""
        solver = Solver(
            self.runs,
            self.slo,
            self.num_requests,
            self.max_doublings,
            self.tolerance,
            self._report_try,
        )
        policies, row = self.runs.config.policies, count()
        first = next((policy for policy in policies if policy.name == "static"), None)
        for policy in policies:
            if policy is not first:
                yield partial(self._answer, solver, policy, next(row))
                continue
            releases = policy, _other_release(policy)
            places = [next(row) for _ in range(2 * len(releases))]
            for place, released in enumerate(releases):
                yield partial(self._answer, solver, released, *places[place :: len(releases)])

    def _answer(
        self, solver: Solver, policy: PolicyTable, row: int, best_row: int | None = None
    ) -> None:
        """Record the answer for a policy's row, and for that of its best batch size."""
        plain = self._keep(row, solver.solve(policy))
        if best_row is not None:
            self._keep(best_row, solver.solve_best(policy, plain))

    def _keep(self, row: int, answer: Answer) -> Answer:
        with self._lock:
            self._answers[row] = answer
        return answer

    def _report_try(self, label: str, request_rate: float, length: int) -> None:
        with self._lock:
            self._tried += 1
            share = max(len(self._answers), self._tried / _TRIES) / self.num_rows
            self.report(
                min(share, 0.99), f"{label}: {request_rate:.3g} requests/s, {length:,} requests"
            )


def _other_release(policy: PolicyTable) -> PolicyTable:
    """Return static batching with answers streamed instead of released whole, or the reverse."""
    if policy.config.release == "batch":
        return policy.with_fields(f"{policy.label} (streamed)", release="request")
    return policy.with_fields(f"{policy.label} (released whole)", release="batch")
