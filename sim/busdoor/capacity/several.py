"""Servers of several kinds for the same requests: a study of each, and one table of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from busdoor.capacity.answer import Answer
from busdoor.capacity.runs import Runs, Spent
from busdoor.capacity.study import Study
from busdoor.config import Config
from busdoor.core.progress import Report
from busdoor.metrics.slo import SLO


@dataclass
class Studies:
    """Studies of the same requests, SLO and policies; their rows are named after their servers."""

    studies: Sequence[Study]

    def start(self, pool: ProcessPoolExecutor | None, report: Report | None) -> None:
        """Set where they run and what is told about progress, before `run`."""
        for number, study in enumerate(self.studies):
            study.start(pool, report and _part(report, number, len(self.studies)))

    def run(self) -> None:
        """Run one study after the other: each keeps all processes busy."""
        for study in self.studies:
            study.run()

    @property
    def runs(self) -> Runs:
        """Runs of the first server."""
        return self.studies[0].runs

    @property
    def slo(self) -> SLO:
        """What must be met."""
        return self.studies[0].slo

    @property
    def finished(self) -> bool:
        """Whether all rows are answered."""
        return all(study.finished for study in self.studies)

    @property
    def num_rows(self) -> int:
        """Rows of the finished table."""
        return sum(study.num_rows for study in self.studies)

    @property
    def spent(self) -> Spent:
        """Runs and requests of all."""
        counts = [study.spent for study in self.studies]
        return Spent(sum(own.num_runs for own in counts), sum(own.num_requests for own in counts))

    @property
    def answers(self) -> list[Answer]:
        """Answers of the rows that are done, by server."""
        return [answer.named(row) for row, answer, _ in self._rows()]

    @property
    def servers(self) -> dict[str, Config]:
        """Which server each of these rows is of."""
        return {row: config for row, _, config in self._rows()}

    def _rows(self) -> list[tuple[str, Answer, Config]]:
        configs = [study.runs.config for study in self.studies]
        return [
            (f"{config.hardware}: {answer.policy}", answer, config)
            for study, config in zip(self.studies, configs, strict=True)
            for answer in study.answers
        ]


def _part(report: Report, number: int, of: int) -> Report:
    """Return a report on one study, as a part of the whole."""
    return lambda share, what: report((number + share) / of, what)
