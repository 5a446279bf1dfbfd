"""Where GEMMs bend: breakpoints over tokens, chosen by the error on what was left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from busdoor.calibration.log import Log
from busdoor.calibration.nnls import Sums, unidentified
from busdoor.core.arrays import Floats

MAX_BREAKS = 3
# A break has to lessen the held-out squares by this share: chance gives less.
WORTH = 0.005
# Squares of relative errors under 0.003 % are rounding: no break is worth them.
_ROUNDING = 1e-9
_MIN_SIDE = 0.01  # of the iterations on either side of a break
_FOLDS = 5


def choose_breaks(
    log: Log, terms: Sequence[str], target: Floats, weights: Floats
) -> tuple[int, ...]:
    """Return at most three breaks, increasing, added one by one while the held-out error falls.

    `terms` are the device's, one that bends among them; `target` is what they should add up to, and
    `weights` how much each row counts, both of shape (n,).
    """
    breaks: tuple[int, ...] = ()
    best = _held_out_squares(log, terms, breaks, target, weights)
    rounding = _ROUNDING * float((weights * target**2).sum())
    for _ in range(MAX_BREAKS):
        trials = {
            tuple(sorted({*breaks, candidate})): np.inf
            for candidate in candidates(log)
            if candidate not in breaks
        }
        for trial in trials:
            trials[trial] = _held_out_squares(log, terms, trial, target, weights)
        if not trials or min(trials.values()) > (1 - WORTH) * best - rounding:
            return breaks
        breaks = min(trials, key=trials.__getitem__)
        best = trials[breaks]
    return breaks


def candidates(log: Log) -> list[int]:
    """Powers of two, and the middle between them, with iterations on both sides."""
    positions = log.columns["positions"]
    sizes = [size for power in range(1, 18) for size in (1 << power, 3 << (power - 1))]
    few = max(3.0, _MIN_SIDE * len(log))
    return [size for size in sizes if (positions < size).sum() >= few <= (positions > size).sum()]


def _held_out_squares(
    log: Log, terms: Sequence[str], breaks: tuple[int, ...], target: Floats, weights: Floats
) -> float:
    """Weighted squared errors by fifth of blocks, fitted on others; infinite if impossible."""
    matrix = log.matrix(terms, breaks)
    if breaks and unidentified(matrix, weights, [str(i) for i in range(matrix.shape[1])]):
        return np.inf
    fold = log.block % _FOLDS
    sums = Sums.of(matrix, target, weights, fold, _FOLDS)
    squares = np.array([float((weights * target**2)[fold == i].sum()) for i in range(_FOLDS)])
    error = 0.0
    for i in range(_FOLDS):
        others = np.arange(_FOLDS) != i
        coefs = Sums(sums.xx[others].sum(axis=0), sums.xy[others].sum(axis=0)).solve()
        error += squares[i] - 2 * coefs @ sums.xy[i] + coefs @ sums.xx[i] @ coefs
    return float(error)
