"""Fitting the calibrated step time to measured iterations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.calibration.breaks import choose_breaks
from busdoor.calibration.features import DEVICE_TERMS, HOST_TERMS, REMEDIES, Floats, Log, read_log
from busdoor.calibration.file import Calibration, about_runs
from busdoor.calibration.solve import Sums, relative_weights, unidentified
from busdoor.names import unknown
from busdoor.result import Result
from busdoor.step_time.calibrated import CalibratedStepTime

ROWS_PER_TERM = 5  # fewer, and the errors say nothing about iterations that were not seen
RESAMPLES = 200  # the ends of a 95 % interval then rest on five resamples each
FOLDS = 5


def calibrate(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    *,
    name: str = "calibration",
    without: Iterable[str] = (),
    graph_sizes: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """Fit a step time to measured iterations.

    Parameters
    ----------
    results : sequence of Result
        Measured runs on one device and model: a profile, replays, imported logs.
    names : sequence of str, optional
        What to call the runs.
    name : str
        What to call the calibration.
    without : iterable of str
        Terms to leave at 0, because the log cannot identify them or you know better.
    graph_sizes : sequence of int, optional
        Batch sizes of CUDA graphs, where the runs' meta does not say.
    resamples : int
        Bootstrap resamples (blocks of contiguous iterations) for the intervals.
    seed : int
        Of the resamples.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If the log is too small to identify a term; the sentence names it and what the log lacks.

    Examples
    --------
    >>> result = Result.example()            # a decode takes a second, whatever is in it
    >>> fitted = calibrate([result], without=DEVICE_TERMS[1:], resamples=0)
    Traceback (most recent call last):
    ValueError: the log has 4 rows of iterations, too few for 1 term (base_s); 5 or more are needed
    """
    names = list(names or (f"run {i + 1}" for i in range(len(results))))
    if not results:
        raise ValueError("there is nothing to calibrate on; give one or more measured runs")
    log = read_log(results, names, graph_sizes)
    model = _choose(log, _wanted(log, without))
    coefs = model.solve(np.ones(model.num_blocks))
    held_out, groups = _held_out(log, model)
    return Calibration(
        step_time=model.step_time(coefs, name),
        intervals=_intervals(model, resamples, seed),
        errors={**_errors(log, model.predict(coefs)), **held_out},
        held_out=groups,
        about={"name": name, **about_runs(results, names), **_counts(log, model)},
    )


@dataclass(frozen=True)
class Part:
    """Device or host: its terms, what they multiply, and what they should add up to."""

    terms: tuple[str, ...]
    matrix: Floats
    target: Floats

    def sums(self, weights: Floats, blocks: NDArray[np.int64]) -> Sums:
        """Return the sums of least squares over each block."""
        return Sums.of(self.matrix, self.target, weights, blocks, int(blocks.max()) + 1)


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
            Sums(np.tensordot(times, sums.xx, 1), np.tensordot(times, sums.xy, 1)).solve() for sums in self._sums
        ]

    def predict(self, coefs: Sequence[Floats]) -> Floats:
        """Seconds of an iteration of each row."""
        parts = [part.matrix @ own for part, own in zip(self.parts, coefs, strict=True)]
        combined: Floats = np.max(parts, axis=0) if self.overlap else np.sum(parts, axis=0)
        return combined

    def named(self, coefs: Sequence[Floats]) -> dict[str, Any]:
        """Coefficients by term; `per_token_s` has a list."""
        table: dict[str, Any] = {}
        for part, own in zip(self.parts, coefs, strict=True):
            rest = own.tolist()
            for term in part.terms:
                count = len(self.breaks) + 1 if term == "per_token_s" else 1
                table[term] = rest[:count] if term == "per_token_s" else rest[0]
                rest = rest[count:]
        return table

    def step_time(self, coefs: Sequence[Floats], name: str) -> CalibratedStepTime:
        """Make the step time of these coefficients."""
        fields = {"base_s": 0.0, **self.named(coefs)}
        fields["per_token_s"] = tuple(fields.get("per_token_s", (0.0,)))
        breaks = self.breaks if len(fields["per_token_s"]) > 1 else ()
        return CalibratedStepTime(
            **fields, token_breaks=breaks, overlap=self.overlap, graph_sizes=self.log.graph_sizes, calibration=name
        )


def _wanted(log: Log, without: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Terms of the device and of the host."""
    dropped = set(without)
    for term in sorted(dropped):
        if term not in REMEDIES:
            raise unknown("a term", term, REMEDIES)
    device = tuple(term for term in DEVICE_TERMS if term not in dropped)
    host = tuple(term for term in HOST_TERMS if term not in dropped) if log.device_s is not None else ()
    _refuse_small(log, device)
    return device, host


def _refuse_small(log: Log, terms: Sequence[str]) -> None:
    """Raise ValueError if the rows cannot tell the terms apart."""
    matrix = log.matrix(terms, ())
    if len(log) < ROWS_PER_TERM * len(terms):
        plural = "s" * (len(terms) != 1)
        raise ValueError(
            f"the log has {len(log)} rows of iterations, too few for {len(terms)} term{plural} "
            f"({', '.join(terms)}); {ROWS_PER_TERM * len(terms)} or more are needed"
        )
    reasons = unidentified(matrix, log.repeat / log.duration_s**2, terms)
    if reasons:
        term, reason = next(iter(reasons.items()))
        others = f"; so it is with {', '.join(list(reasons)[1:])}" if len(reasons) > 1 else ""
        raise ValueError(
            f"the log cannot identify {term}: {reason}{others}; measure {REMEDIES[term]}, or leave a term at 0 by "
            f"--without {term}"
        )


def _choose(log: Log, terms: tuple[tuple[str, ...], tuple[str, ...]]) -> Model:
    """Find breaks, and whether host and device add or overlap: whatever predicts the durations better."""
    device, host = terms
    target = log.duration_s if log.device_s is None else log.device_s
    weights, scale = relative_weights(log.matrix(device, ()), log.duration_s, log.repeat)
    breaks = choose_breaks(log, device, target, weights) if "per_token_s" in device else ()
    if breaks:
        weights, scale = relative_weights(log.matrix(device, breaks), log.duration_s, log.repeat)
    own = Part(device, log.matrix(device, breaks), target)
    if log.device_s is None or log.host_s is None or not host:
        return Model(log, (own,), breaks, False, weights)
    columns = log.matrix(host, ())
    added = Part(host, columns, np.maximum(log.duration_s - log.device_s, 0.0))
    meanwhile = Part(host, columns, log.host_s)
    models = [Model(log, (own, added), breaks, False, weights)]
    if log.ahead:  # else the host works only while the device waits
        models.append(Model(log, (own, meanwhile), breaks, True, weights))
    return min(models, key=_mean_absolute)


def _mean_absolute(model: Model) -> float:
    predicted = model.predict(model.solve(np.ones(model.num_blocks)))
    return _errors(model.log, predicted)["mean_absolute"]


def _errors(log: Log, predicted: Floats, rows: Any = slice(None)) -> dict[str, float]:
    """Mean absolute, 90th percentile and total of the relative errors of iterations."""
    measured, predicted, repeat = log.duration_s[rows], predicted[rows], log.repeat[rows]
    relative = np.abs(predicted / measured - 1)
    return {
        "mean_absolute": float(np.average(relative, weights=repeat)),
        "p90": float(np.percentile(relative, 90)),
        "total": float((predicted * repeat).sum() / (measured * repeat).sum() - 1),
    }


def _held_out(log: Log, model: Model) -> tuple[dict[str, float], dict[str, Mapping[str, float]]]:
    """Errors on each run when it is left out, or on each fifth of the only one; and over all of them."""
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
        tables[log.names[number] if several else f"fifth {number + 1}"] = _errors(log, predicted, rows)
    return {f"held_out_{key}": value for key, value in _errors(log, predicted).items()}, tables


def _intervals(model: Model, resamples: int, seed: int) -> dict[str, Any]:
    """95 % intervals of the coefficients: percentiles over resampled blocks."""
    if not resamples:
        return {}
    rng, count = np.random.default_rng(seed), model.num_blocks
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    solved = [model.solve(times) for times in draws]
    ends = [np.percentile([own[i] for own in solved], [2.5, 97.5], axis=0) for i in range(len(model.parts))]
    low, high = (model.named([end[i] for end in ends]) for i in (0, 1))
    return {
        term: [list(pair) for pair in zip(low[term], high[term], strict=True)]
        if isinstance(low[term], list)
        else [low[term], high[term]]
        for term in low
    }


def _counts(log: Log, model: Model) -> dict[str, Any]:
    return {
        "num_iterations": int(log.repeat.sum()),
        "num_outliers": int(log.repeat[model.weights == 0].sum()),
        "repeatability": repeatability(log),
    }


def repeatability(log: Log) -> float:
    """Mean relative difference of two consecutive decode iterations of as many requests: the noise nobody can predict.

    NaN where the log has none.
    """
    decodes, rows = log.columns["per_chunk_s"] == 0, log.columns["per_request_s"]
    same = decodes[1:] & decodes[:-1] & (rows[1:] == rows[:-1]) & (log.run[1:] == log.run[:-1])
    if not same.any():
        return float("nan")
    first, second = log.duration_s[:-1][same], log.duration_s[1:][same]
    return float(np.mean(np.abs(second - first) / (second + first) * 2) / np.sqrt(2))
