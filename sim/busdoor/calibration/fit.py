"""Fit the calibrated step time to measured iterations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.calibration.breaks import choose_breaks
from busdoor.calibration.calibration import Calibration, about_runs
from busdoor.calibration.log import Log, read_log
from busdoor.calibration.model import Model, Part
from busdoor.calibration.nnls import relative_weights, unidentified
from busdoor.calibration.quality import (
    bootstrap,
    describe_log,
    fit_errors,
    held_out_errors,
)
from busdoor.core.arrays import Floats
from busdoor.core.names import unknown
from busdoor.results.result import Result
from busdoor.step_time.terms import TERM, term_names

ROWS_PER_TERM = 5  # with fewer, errors in sample do not predict those of other iterations
# of an iteration: a host that works so much of it is what the iteration waits for
HOST_BOUND = 0.95
RESAMPLES = 200  # the ends of a 95 % interval then rest on five resamples each


def calibrate(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    *,
    name: str = "calibration",
    without: Iterable[str] = (),
    graph_sizes: Sequence[int] | None = None,
    mixed_graph_sizes: Sequence[int] | None = None,
    policy: Mapping[str, Any] | None = None,
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
    graph_sizes, mixed_graph_sizes : sequence of int, optional
        Batch sizes of CUDA graphs of decodes, and token counts of those of other batches, where the
        runs' meta has none.
    policy : mapping, optional
        How the runs were scheduled, where their meta has no policy; kept beside the fit, for
        simulations.
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
    >>> calibrate([Result.example()])
    Traceback (most recent call last):
    ValueError: the log has 5 rows of iterations, too few for 7 terms (base_s, ...); 35 or more are needed
    >>> others = term_names("device", graphs=False)[1:]
    >>> calibrate([Result.example()], without=others).step_time.base_s       # every iteration took a second
    1.0
    """
    names = list(names or (f"run {i + 1}" for i in range(len(results))))
    if not results:
        raise ValueError("there is nothing to calibrate on; give one or more measured runs")
    log = read_log(results, names, graph_sizes, mixed_graph_sizes)
    model = _choose(log, _wanted(log, without))
    coefs = model.solve(np.ones(model.num_blocks))
    held_out, groups = held_out_errors(log, model)
    intervals, draws = bootstrap(model, resamples, seed)
    return Calibration(
        step_time=model.step_time(coefs, name),
        intervals=intervals,
        errors={**fit_errors(log, model.predict(coefs)), **held_out},
        held_out=groups,
        draws=draws,
        about={
            "name": name,
            **about_runs(results, names, policy),
            **describe_log(log, model, coefs),
        },
    )


def _wanted(log: Log, without: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Terms of the device and of the host."""
    dropped = set(without)
    for term in sorted(dropped):
        if term not in TERM:
            raise unknown("a term", term, TERM)
    graphs = bool(log.graph_sizes or log.mixed_graph_sizes)
    if log.mixed_graph_sizes and not log.columns["eager_s"].any():  # all that ran fits a graph
        dropped |= {"eager_s", "host_eager_s"}
    mixes = graphs and bool(log.columns["per_mixed_request_s"].any())
    device = tuple(term for term in term_names("device", mixes) if term not in dropped)
    host = tuple(term for term in term_names("host", graphs) if term not in dropped)
    host = host if log.device_s is not None else ()
    _refuse_small(log, device)
    return device, host


def _refuse_small(log: Log, terms: Sequence[str]) -> None:
    """Raise ValueError if the rows cannot separate the terms."""
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
            f"the log cannot identify {term}: {reason}{others}; measure {TERM[term].remedy}, or "
            f"leave a term at 0 by --without {term}"
        )


def _choose(log: Log, terms: tuple[tuple[str, ...], tuple[str, ...]]) -> Model:
    """Find breaks, and whether host and device add or overlap."""
    device, host = terms
    target = log.duration_s if log.device_s is None else log.device_s
    weights = relative_weights(log.matrix(device, ()), log.duration_s, log.repeat)[0]
    breaks = (
        choose_breaks(log, device, target, weights)
        if any(TERM[term].segmented for term in device)
        else ()
    )
    if breaks:
        weights = relative_weights(log.matrix(device, breaks), log.duration_s, log.repeat)[0]
    own = Part(device, log.matrix(device, breaks), target)
    if log.device_s is None or log.host_s is None or not host:
        return Model(log, (own,), breaks, False, weights)
    overlap = _overlaps(log.duration_s, log.device_s, log.host_s)
    if overlap:
        own = own._replace(counts=_fed(log, log.host_s, own, weights))
    exposed = np.maximum(log.duration_s - log.device_s, 0.0)
    other = Part(host, log.matrix(host, ()), log.host_s if overlap else exposed)
    return Model(log, (own, other), breaks, overlap, weights)


def _fed(log: Log, host_s: Floats, own: Part, weights: Floats) -> NDArray[np.bool_]:
    """Mark the iterations where the device did not wait for launches: only they show its time.

    All of them, where the others alone cannot tell the terms apart: then what the device waited is
    all that is known.
    """
    fed = (log.columns["eager_s"] == 0) | (host_s <= HOST_BOUND * log.duration_s)
    columns = [str(i) for i in range(own.matrix.shape[1])]
    return np.ones_like(fed) if unidentified(own.matrix, weights * fed, columns) else fed


def _overlaps(duration_s: Floats, device_s: Floats, host_s: Floats) -> bool:
    """Whether iterations last as long as the longer of device and host, rather than as both."""
    together, apart = np.maximum(device_s, host_s), device_s + host_s
    return bool(np.abs(duration_s - together).sum() < np.abs(duration_s - apart).sum())
