"""Non-negative least squares on relative errors; sums are added once for resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.core.arrays import Floats

# A column that the others explain to this share of its square has no information of its own.
COLLINEAR = 1e-6
SHOWN = 1e-2  # of a column that explains another: less is rounding
# The Gram matrix has squared condition: what is smaller than this share of its largest eigenvalue
# is rounding.
_RANK = 1e-11
# An iteration this many times longer (or shorter) than predicted from the rest is a compilation or
# a process that was stopped. It is left out and counted.
OUTLIER = 5.0
_REWEIGHTINGS = 4  # of which the last changes nothing in the fourth digit


class Sums(NamedTuple):
    """What least squares need of some rows: X'WX (..., k, k) and X'Wy (..., k). Sums add."""

    xx: Floats
    xy: Floats

    @classmethod
    def of(
        cls, matrix: Floats, target: Floats, weights: Floats, groups: NDArray[np.int64], count: int
    ) -> Sums:
        """Sum over each of `count` groups of rows."""
        k = matrix.shape[1]
        weighted = matrix * weights[:, None]
        xx, xy = np.zeros((count, k, k)), np.zeros((count, k))
        for group in range(count):
            own = groups == group
            xx[group], xy[group] = matrix[own].T @ weighted[own], weighted[own].T @ target[own]
        return cls(xx, xy)

    def solve(self) -> Floats:
        """Return the non-negative coefficients that leave the least weighted squares."""
        from scipy.optimize import lsq_linear

        scale = np.sqrt(np.diagonal(self.xx))
        scale = np.where(scale > 0, scale, 1.0)
        values, vectors = np.linalg.eigh(self.xx / np.outer(scale, scale))
        kept = values > _RANK * values[-1]
        root = np.sqrt(values[kept])
        rows = root[:, None] * vectors[:, kept].T
        right = (vectors[:, kept].T @ (self.xy / scale)) / root
        # a resample that misses a term: lsq_linear wants as many rows as columns
        if len(right) < len(scale):
            missing = len(scale) - len(right)
            rows = np.vstack([rows, np.zeros((missing, len(scale)))])
            right = np.append(right, np.zeros(missing))
        found: Floats = lsq_linear(rows, right, bounds=(0, np.inf), method="bvls", tol=1e-12).x
        # bvls leaves a bound by a rounding error now and then
        positive: Floats = np.maximum(found, 0.0) / scale
        return positive


def relative_weights(matrix: Floats, target: Floats, repeat: Floats) -> tuple[Floats, Floats]:
    """Weights under which relative errors count, and the prediction they are relative to.

    Weights of 1/measured² would favour short iterations; those of 1/predicted², found by repeating,
    keep the mean. Outliers have weight 0.
    """
    everything = np.zeros(len(target), dtype=np.int64)
    scale, kept = target, np.ones(len(target), dtype=bool)
    for _ in range(_REWEIGHTINGS):
        weights = np.where(kept, repeat / scale**2, 0.0)
        sums = Sums.of(matrix, target, weights, everything, 1)
        predicted = matrix @ Sums(sums.xx[0], sums.xy[0]).solve()
        scale = np.maximum(predicted, 1e-3 * float(np.median(target)))
        kept = (target < OUTLIER * scale) & (target > scale / OUTLIER)
    return np.where(kept, repeat / scale**2, 0.0), scale


def unidentified(matrix: Floats, weights: Floats, names: Sequence[str]) -> dict[str, str]:
    """Name the columns that the rows cannot separate from the others, each with the reason.

    >>> rows = np.array([[1.0, 2.0, 0.0], [1.0, 4.0, 0.0], [1.0, 5.0, 0.0]])
    >>> unidentified(rows, np.ones(3), ["base_s", "per_token_s", "per_chunk_s"])
    {'per_chunk_s': 'it never occurs'}
    >>> unidentified(np.array([[1.0, 2.0], [1.0, 2.0]]), np.ones(2), ["base_s", "per_token_s"])
    {'base_s': 'it goes with per_token_s', 'per_token_s': 'it goes with base_s'}
    """
    gram = matrix.T @ (matrix * weights[:, None])
    norms = np.sqrt(np.diagonal(gram))
    reasons = {name: "it never occurs" for name, norm in zip(names, norms, strict=True) if not norm}
    there = np.flatnonzero(norms)
    unit = gram[np.ix_(there, there)] / np.outer(norms[there], norms[there])
    for place, column in enumerate(there.tolist()):
        others = np.delete(np.arange(len(there)), place)
        by = np.linalg.lstsq(unit[np.ix_(others, others)], unit[others, place], rcond=1e-10)[0]
        if 1 - by @ unit[others, place] < COLLINEAR:
            partners = [names[there[other]] for other in others[np.abs(by) > SHOWN]]
            reasons[names[column]] = f"it goes with {' and '.join(partners)}"
    return reasons
