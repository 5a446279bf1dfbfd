"""The terms fitted to a log, in one part (whole iteration) or two (device and host)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.calibration.log import Log, works_ahead
from busdoor.calibration.nnls import Sums
from busdoor.calibration.teacher_forcing import predicted_s
from busdoor.core.arrays import Floats
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.terms import TERM


class Part(NamedTuple):
    """Device or host: terms, what they multiply and add up to, the rows that show it."""

    terms: tuple[str, ...]
    matrix: Floats
    target: Floats
    counts: NDArray[np.bool_] | bool = True

    def sums(self, weights: Floats, blocks: NDArray[np.int64]) -> Sums:
        """Return the sums of least squares over each block."""
        return Sums.of(
            self.matrix, self.target, weights * self.counts, blocks, int(blocks.max()) + 1
        )


@dataclass(frozen=True)
class Model:
    """The terms that are fitted to a log, in one part or two."""

    log: Log
    parts: tuple[Part, ...]
    breaks: tuple[int, ...]
    overlap: bool
    weights: Floats

    @property
    def num_blocks(self) -> int:
        """Contiguous pieces of the log."""
        return int(self.log.block.max()) + 1

    @cached_property
    def _sums(self) -> list[Sums]:
        return [part.sums(self.weights, self.log.block) for part in self.parts]

    def solve(self, times: Floats) -> list[Floats]:
        """Coefficients of each part, with each block counted so many times."""
        return [
            Sums(_weighed(times, sums.xx), _weighed(times, sums.xy)).solve() for sums in self._sums
        ]

    def predict(self, coefs: Sequence[Floats]) -> Floats:
        """Return the seconds of an iteration of each row."""
        if self.overlap and any(map(works_ahead, self.log.results)):
            return self._teacher_forced(self.step_time(coefs, ""))
        parts = [part.matrix @ own for part, own in zip(self.parts, coefs, strict=True)]
        combined: Floats = np.max(parts, axis=0) if self.overlap else np.sum(parts, axis=0)
        return combined

    def _teacher_forced(self, step_time: CalibratedStepTime) -> Floats:
        """Return each row's seconds by the row-to-row recurrence of host and device."""
        log = self.log
        rows = [
            predicted_s(own, step_time)[own.iterations["duration_s"].to_numpy() > 0]
            for own in log.results
        ]
        per_iteration: Floats = np.concatenate(rows) / log.repeat
        return per_iteration

    def named(self, coefs: Sequence[Floats]) -> dict[str, Any]:
        """Return the coefficients by term; a term that bends has a list."""
        table: dict[str, Any] = {}
        for part, own in zip(self.parts, coefs, strict=True):
            rest = own.tolist()
            for term in part.terms:
                count = len(self.breaks) + 1 if TERM[term].segmented else 1
                table[term] = rest[:count] if TERM[term].segmented else rest[0]
                rest = rest[count:]
        return table

    def step_time(self, coefs: Sequence[Floats], name: str) -> CalibratedStepTime:
        """Make the step time of these coefficients."""
        return CalibratedStepTime(
            **{"base_s": 0.0, **self.named(coefs)},
            token_breaks=self.breaks,
            overlap=self.overlap,
            pipeline=self.overlap,
            graph_sizes=self.log.graph_sizes,
            mixed_graph_sizes=self.log.mixed_graph_sizes,
            calibration=name,
        )


def _weighed(times: Floats, sums: Floats) -> Floats:
    """Return the sums over all blocks, each counted so many times."""
    return np.asarray(np.tensordot(times, sums, 1), dtype=np.float64)
