"""Gaps between tokens, pooled over all requests, from the table of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats, Integers


class _Gaps(NamedTuple):
    """Gaps of tokens: lines of first + slope * k for k from skip to end (excluded), and points.

    Each gap of line i is that of `weight[i]` tokens, point j that of `point_weight[j]` tokens.
    """

    first: Floats
    slope: Floats
    skip: Integers
    end: Integers
    weight: Integers
    point: Floats
    point_weight: Integers

    def spread(self, lines: NDArray[np.bool_] | slice) -> tuple[Floats, Integers]:
        """Return every gap of some lines, and its weight."""
        skip = self.skip[lines]
        count = self.end[lines] - skip
        before = np.cumsum(count) - count - skip
        within = np.arange(count.sum()) - np.repeat(before, count)
        along = np.repeat(self.slope[lines], count) * within
        return np.repeat(self.first[lines], count) + along, np.repeat(self.weight[lines], count)


def token_gaps(iterations: pd.DataFrame) -> tuple[Floats, Integers]:
    """Collect all gaps between tokens: their lengths in seconds, and how many tokens had each.

    A decode's gap is the iteration that made it, and whatever ran before it in which the request
    stood still (a prefill iteration of `prefill_first`, or the time that it was preempted).
    """
    gaps = _gaps_of(iterations)
    of_lines, weights = gaps.spread(slice(None))
    return np.concatenate([of_lines, gaps.point]), np.concatenate([weights, gaps.point_weight])


def gap_statistics(
    iterations: pd.DataFrame, percents: Sequence[float], scale: float = 1.0
) -> tuple[float, float, list[float]] | None:
    """Return mean, standard deviation and percentiles of `scale` times the gaps; None without any.

    As of `token_gaps`, but without a list of them: there may be a hundred for each request.
    """
    gaps = _gaps_of(iterations)
    count = (gaps.end - gaps.skip).astype(float)
    weight, point_weight = gaps.weight * count, gaps.point_weight
    total = weight.sum() + point_weight.sum()
    if not total:
        return None
    # sums of k and of its square, k from skip to end
    ks = count * (gaps.skip + gaps.end - 1) / 2
    squares = _squares(gaps.end) - _squares(gaps.skip)
    sums = gaps.weight * (gaps.first * count + gaps.slope * ks)
    mean = (sums.sum() + (point_weight * gaps.point).sum()) / total
    off = gaps.first - mean
    lines = gaps.weight * (count * off**2 + 2 * off * gaps.slope * ks + gaps.slope**2 * squares)
    variance = (lines.sum() + (point_weight * (gaps.point - mean) ** 2).sum()) / total
    found = _percentiles(gaps, percents, scale)
    return float(scale * mean), float(scale * np.sqrt(max(variance, 0.0))), found


def _squares(end: Integers) -> Floats:
    """Sum of the squares of the whole numbers below `end`."""
    below: Floats = end.astype(float)
    squares: Floats = (below - 1) * below * (2 * below - 1) / 6
    return squares


def _percentiles(gaps: _Gaps, percents: Sequence[float], scale: float) -> list[float]:
    """Return percentiles of all gaps, of which only those about one are spread and sorted."""
    ends = gaps.first + gaps.slope * gaps.skip, gaps.first + gaps.slope * (gaps.end - 1)
    low, high = np.minimum(*ends), np.maximum(*ends)
    weight, points, of_points = gaps.weight * (gaps.end - gaps.skip), gaps.point, gaps.point_weight
    total = weight.sum() + of_points.sum()
    middles, shares = _sample(((low + high) / 2, weight), (points, of_points))

    def within(percent: float, share: float) -> float | None:
        """Look for a percentile among the gaps that are so near to its place, in per cent."""
        place = percent / 100 * (total - 1)
        least = middles[np.searchsorted(shares, percent - share)]
        most = middles[min(int(np.searchsorted(shares, percent + share)) + 2, len(middles) - 1)]
        near = (points >= least) & (points <= most)
        values, counts = gaps.spread((high >= least) & (low <= most))
        before = weight[high < least].sum() + of_points[points < least].sum()
        before += counts[values < least].sum()
        kept = (values >= least) & (values <= most)
        values = np.concatenate([values[kept], points[near]])
        counts = np.concatenate([counts[kept], of_points[near]])
        found = before <= place and np.ceil(place) < before + counts.sum()
        return _at(place, scale * values, counts, int(before)) if found else None

    tried = ((within(percent, 0.5 * 4**n) for n in count()) for percent in percents)
    return [next(value for value in values if value is not None) for values in tried]


def _sample(*parts: tuple[Floats, Integers]) -> tuple[Floats, Floats]:
    """Return some values in order, between the infinities, and per cent of weight up to each."""
    steps = [max(1, len(values) // 2**13) for values, _ in parts]  # to half a per cent or so
    values = np.concatenate([own[::step] for (own, _), step in zip(parts, steps, strict=True)])
    weights = np.concatenate(
        [own[::step] * step for (_, own), step in zip(parts, steps, strict=True)]
    )
    order = np.argsort(values)
    sums = np.cumsum(np.maximum(weights[order], 1))
    return np.concatenate([[-np.inf], values[order], [np.inf]]), 100 * sums / sums[-1]


class GapsInParts:
    """The gaps between tokens of one server's iterations that come in parts: those of the whole.

    >>> from busdoor.results.result import Result
    >>> table, parts = Result.example().iterations, GapsInParts()
    >>> given = [parts.add(table[:1]), parts.add(table[1:]), parts.finish()]
    >>> int(sum(weights.sum() for _, weights in given)), int(token_gaps(table)[1].sum())
    (176, 176)
    """

    def __init__(self) -> None:
        self._rest = pd.DataFrame()  # the last row that decodes, and those after it

    def add(self, iterations: pd.DataFrame) -> tuple[Floats, Integers]:
        """Return gaps and weights that are known with this part, as `token_gaps`."""
        table = pd.concat([self._rest, iterations], ignore_index=True)
        decoding = np.flatnonzero(table["num_decode_tokens"].to_numpy() > 0)
        last = int(decoding[-1]) if len(decoding) else -1
        self._rest = table[max(last, 0) :].copy()
        if last < 0:
            return np.zeros(0), np.zeros(0, np.int64)
        # Its gaps are counted now; the next part needs to know that it decoded, and when it ended.
        self._rest.loc[last, ["repeat", "num_resumed"]] = 0
        return token_gaps(table[: last + 1])

    def finish(self) -> tuple[Floats, Integers]:
        """Return what is left after the last part."""
        return token_gaps(self._rest) if len(self._rest) else (np.zeros(0), np.zeros(0, np.int64))


def by_replica(iterations: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the iterations by server; in each part one follows the other."""
    replica = iterations["replica"].to_numpy()
    if (replica[:1] == replica).all():
        return [iterations]
    return [own for _, own in iterations.groupby("replica")]


def _gaps_of(iterations: pd.DataFrame) -> _Gaps:
    parts = zip(*map(_gaps, by_replica(iterations)), strict=True)
    return _Gaps(*(np.concatenate(own) for own in parts))


def _gaps(iterations: pd.DataFrame) -> _Gaps:
    """Return the gaps of one server.

    Durations of a row's iterations lie on a line, but for the last: that one hides what the host
    does for whatever follows (see `StepTime.ahead`).
    """
    decodes, repeat = (iterations[column].to_numpy() for column in ("num_decode_tokens", "repeat"))
    total, first, last = (
        iterations[f"{column}duration_s"].to_numpy() for column in ("", "first_", "last_")
    )
    slope = 2 * ((total - last) / np.maximum(repeat - 1, 1) - first) / np.maximum(repeat - 2, 1)
    end_s = iterations["start_s"].to_numpy() + total
    late_gaps, late_weights, early = _stalls(iterations, end_s)
    # their first iterations are in late_gaps instead
    skip = np.zeros(len(decodes), dtype=np.int64)
    skip[early] = 1
    lines, ends = (decodes > 0) & (repeat - 1 > skip), (decodes > 0) & (repeat > skip)
    resumed = iterations["num_resumed"].to_numpy()
    again = resumed > 0
    again_s = iterations["resumed_gap_s"].to_numpy()[again] / resumed[again]
    return _Gaps(
        first[lines],
        (slope * (repeat > 2))[lines],
        skip[lines],
        repeat[lines] - 1,
        decodes[lines],
        np.concatenate([last[ends], late_gaps, again_s]),
        np.concatenate([decodes[ends], late_weights, resumed[again]]),
    )


def _stalls(iterations: pd.DataFrame, end_s: Floats) -> tuple[Floats, Integers, Integers]:
    """Return the gaps of decodes that paused for other iterations, and the rows that resume."""
    decodes = iterations["num_decode_tokens"].to_numpy()
    joined = iterations["num_joined"].to_numpy()
    after_pause = np.flatnonzero((decodes > 0) & (np.concatenate([[1], decodes[:-1]]) == 0))
    gaps: list[float] = []
    weights: list[int] = []
    first_end_s = (iterations["start_s"] + iterations["first_duration_s"]).to_numpy()
    for row in after_pause.tolist():
        left = int(decodes[row])
        before = row - 1
        while left > 0 and before >= 0 and decodes[before] == 0:
            new = min(left, int(joined[before]))
            gaps.append(first_end_s[row] - end_s[before])
            weights.append(new)
            left -= new
            before -= 1
        gaps.append(
            first_end_s[row] - (end_s[before] if before >= 0 else iterations["start_s"].iloc[row])
        )
        weights.append(left)
    return np.array(gaps, dtype=np.float64), np.array(weights, dtype=np.int64), after_pause


def weighted_percentile(values: Floats, weights: Integers, percent: float) -> float:
    """Percentile by linear interpolation, as numpy's of the values repeated `weights` times.

    >>> weighted_percentile(np.array([3.0, 1.0]), np.array([1, 3]), 75)
    1.5
    """
    total = weights.sum()
    return _at(percent / 100 * (total - 1), values, weights) if total else float("nan")


def _at(place: float, values: Floats, weights: Integers, before: int = 0) -> float:
    """Return the value at a place in the order of values, before which there are others."""
    order = np.argsort(values)
    counts = np.cumsum(weights[order])
    ends = np.array([np.floor(place), np.ceil(place)]) - before
    low, high = values[order][np.searchsorted(counts, ends, side="right")]
    return float(low + (high - low) * (place - np.floor(place)))
