"""How good a fit is: errors on seen and unseen data, and the intervals of its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np

from busdoor.calibration.log import Log
from busdoor.calibration.model import Model
from busdoor.core.arrays import Floats
from busdoor.step_time.terms import TERM

FOLDS = 5
KEPT_DRAWS = 40  # of the resamples: what a 95 % interval of an answer rests on


class StepErrors(NamedTuple):
    """Relative errors of the step time on measured batches.

    Mean and 90th percentile of the absolute error of an iteration, and the error of the sum of all
    iterations with its sign.
    """

    mean_absolute: float
    p90: float
    total: float


def relative_errors(measured_s: Floats, predicted_s: Floats, repeat: Floats) -> StepErrors:
    """Compare seconds of rows of iterations; a row counts as often as its batch repeats.

    >>> relative_errors(np.array([1.0, 2.0]), np.array([1.1, 1.8]), np.array([3.0, 1.0])).total.__round__(3)
    0.02
    """
    if not len(measured_s):
        return StepErrors(nan, nan, nan)
    relative = np.abs(predicted_s / measured_s - 1)
    return StepErrors(
        mean_absolute=float(np.average(relative, weights=repeat)),
        p90=float(np.percentile(relative, 90)),
        total=float((predicted_s * repeat).sum() / (measured_s * repeat).sum() - 1),
    )


def fit_errors(log: Log, predicted: Floats, rows: Any = slice(None)) -> dict[str, float]:
    """Return the errors of a fit on (some of) the rows of its log."""
    return relative_errors(log.duration_s[rows], predicted[rows], log.repeat[rows])._asdict()


def held_out_errors(
    log: Log, model: Model
) -> tuple[dict[str, float], dict[str, Mapping[str, float]]]:
    """Errors on each run left out, or on each fifth of the only one; and over all of them."""
    several = len(log.names) > 1
    group = log.run if several else log.block % FOLDS
    predicted = np.zeros(len(log))
    tables: dict[str, Mapping[str, float]] = {}
    for number in np.unique(group).tolist():
        rows = group == number
        kept = np.ones(model.num_blocks)
        kept[np.unique(log.block[rows])] = 0.0
        if not kept.any():
            return {}, {}
        predicted[rows] = model.predict(model.solve(kept))[rows]
        tables[log.names[number] if several else f"fifth {number + 1}"] = fit_errors(
            log, predicted, rows
        )
    return {f"held_out_{key}": value for key, value in fit_errors(log, predicted).items()}, tables


def bootstrap(
    model: Model, resamples: int, seed: int
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """95 % intervals of the coefficients over resampled blocks, and some of the draws themselves.

    A draw has all coefficients of one resample, so that what goes together stays together.
    """
    if not resamples:
        return {}, ()
    rng, count = np.random.default_rng(seed), model.num_blocks
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    solved = [model.solve(times) for times in draws]
    ends = [
        np.percentile([own[i] for own in solved], [2.5, 97.5], axis=0)
        for i in range(len(model.parts))
    ]
    low, high = (model.named([end[i] for end in ends]) for i in (0, 1))
    intervals = {
        term: [list(pair) for pair in zip(low[term], high[term], strict=True)]
        if TERM[term].segmented
        else [low[term], high[term]]
        for term in low
    }
    return intervals, tuple(model.named(own) for own in solved[:KEPT_DRAWS])


def describe_log(log: Log, model: Model, coefs: Sequence[Floats]) -> dict[str, Any]:
    """Return a log's iterations, those left out, and the spread that no model can predict.

    `drift` is the standard deviation of measured over predicted time between the contiguous pieces
    of the log.
    """
    seconds = np.array([model.predict(coefs), log.duration_s]) * log.repeat
    predicted, measured = (np.bincount(log.block, own) for own in seconds)
    return {
        "num_iterations": int(log.repeat.sum()),
        "num_outliers": int(log.repeat[model.weights == 0].sum()),
        "repeatability": repeatability(log),
        "drift": float(np.std(measured / predicted)),
    }


def repeatability(log: Log) -> float:
    """Mean relative difference of consecutive like decodes: noise that no model predicts.

    NaN where the log has none.
    """
    decodes, rows = log.columns["per_chunk_s"] == 0, log.columns["per_request_s"]
    same = decodes[1:] & decodes[:-1] & (rows[1:] == rows[:-1]) & (log.run[1:] == log.run[:-1])
    if not same.any():
        return float("nan")
    first, second = log.duration_s[:-1][same], log.duration_s[1:][same]
    return float(np.mean(np.abs(second - first) / (second + first) * 2) / np.sqrt(2))
