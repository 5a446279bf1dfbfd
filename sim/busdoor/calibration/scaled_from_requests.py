"""Two efficiencies from per-request times: a known server's roofline, scaled until it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from busdoor.calibration.calibration import Calibration
from busdoor.calibration.quality import KEPT_DRAWS
from busdoor.calibration.request_fit import (
    SURE,
    Fitted,
    Load,
    RequestFit,
    check_timed,
    confused,
    large_errors,
)
from busdoor.calibration.request_load import Sent, about_requests, server_of
from busdoor.calibration.teacher_forcing import MEMORY
from busdoor.config import Config
from busdoor.core.arrays import Floats
from busdoor.results.result import Result
from busdoor.step_time.scaled_roofline import ScaledRooflineStepTime

UNKNOWNS = ("gemm_scale", "memory_scale", "request_overhead_s")
# unit of the host's seconds per request: one that moves TPOT about as much as the other units
_REQUEST_S = 200e-6
_LEAST, _MOST = 0.1, 2.0  # of a scale, as `ScaledRooflineStepTime` has them
_MOST_REQUESTS = 100.0  # of those units: 20 ms a request
_SHARP = 0.25  # of an efficiency: one whose standard error is more was not identified
_HIDDEN = (
    "the host's time per step apart from the GPU's launch gaps",
    "weights apart from keys and values",
    "GEMMs apart from prefill attention",
)


def calibrate_scaled(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    *,
    gpu: Any,
    model: Any,
    tp: int = 1,
    engine: Any = "vllm",
    gpu_options: Mapping[str, Any] | None = None,
    name: str = "calibration",
    policy: Mapping[str, Any] | None = None,
    sent: Sent | None = None,
) -> Calibration:
    """Fit the roofline of a GPU and a model to per-request times of a server of them.

    Parameters
    ----------
    results, names, name, policy, sent
        As in `calibrate_from_requests`; of the policy and the memory, what neither the meta nor
        `policy` has is what the engine sets on that GPU.
    gpu, model, tp, gpu_options
        As in the table [gpu] of a configuration.
    engine : str, mapping or Engine
        Whose host time per step and front end it is, and whose lookahead and memory share.

    Returns
    -------
    Calibration
        Its step time is a `ScaledRooflineStepTime`; `about` and `errors` are as
        `calibrate_from_requests` has them.

    Raises
    ------
    ValueError
        If a run has no TTFT or TPOT, or the model does not fit the GPU.
    """
    names = list(names or (f"run {i + 1}" for i in range(len(results))))
    for run, result in zip(names, results, strict=True):
        check_timed(run, result)
    given, how = dict(policy or {}), sent or Sent()
    card = {"name": gpu, "model": model, "tp": tp, **(gpu_options or {})}
    scheduler = {key: value for key, value in given.items() if key not in MEMORY}
    config = Config.from_table(
        {"gpu": card, "engine": engine, "policy": {"name": "vllm", **scheduler}}
    )
    rows = zip(names, results, strict=True)
    loads = [
        how.load(run, result, given, i, server_of(config, result))
        for i, (run, result) in enumerate(rows)
    ]
    fit, start = _fit(config, loads, given, name)
    found = fit.solve(start)
    errors = fit.errors(found.residuals)
    doubts = [
        *large_errors(errors),
        *confused(found.jacobian * found.x, UNKNOWNS, ()),
        *_blurred(found),
        *_at_bounds(found, fit.bounds),
    ]
    about = about_requests(results, names, name=name, policy=policy, lookahead=loads[0].lookahead)
    unsaid = {key: loads[0].meta[key] for key in MEMORY[:2] if key not in given}
    return Calibration(
        step_time=fit.model(found.x),
        intervals=_intervals(found),
        errors={f"{run}_{key}": value for run, row in errors.items() for key, value in row.items()},
        held_out={},
        draws=[_fields(own, fit.bounds) for own in found.draws(KEPT_DRAWS)],
        about=about
        | {"gpu": config.gpu.name.name, "model": config.gpu.model.name, "tp": tp}
        | {"engine": config.engine.name if config.engine else ""}
        | {"server": about["server"] | unsaid}
        | {"not_identified": _unsure(found), "hidden": list(_HIDDEN)}
        | ({"doubts": doubts} if doubts else {}),
    )


def _fields(x: Floats, bounds: tuple[Floats, Floats]) -> dict[str, float]:
    """Return the fields of the step time that some unknowns stand for."""
    gemm, memory, request = np.clip(x, *bounds).tolist()
    values = (1 / gemm, 1 / memory, request * _REQUEST_S)
    return dict(zip(UNKNOWNS, values, strict=True))


def _fit(
    config: Config, loads: Sequence[Load], policy: Mapping[str, Any], name: str
) -> tuple[RequestFit[ScaledRooflineStepTime], Floats]:
    """Return the problem, and where to start: at the roofline, with the engine's host."""
    roofline = {**config.gpu.roofline(), "engine": config.engine, "fitted_to": name}

    def step_time(x: Floats) -> ScaledRooflineStepTime:
        gemm, memory, request = np.maximum(x, 0.0).tolist()
        scales = {"gemm_scale": 1 / gemm, "memory_scale": 1 / memory}
        return ScaledRooflineStepTime(**roofline, **scales, request_overhead_s=request * _REQUEST_S)

    first = step_time(np.ones(3))
    least = [1 / _most_scale(first, unknown) for unknown in UNKNOWNS[:2]]
    bounds = np.array([*least, 0.0]), np.array([1 / _LEAST, 1 / _LEAST, _MOST_REQUESTS])
    start = np.array([1.0, 1.0, first.engine.host_s(config.gpu.tp)[1] / _REQUEST_S])
    return RequestFit(loads, policy, step_time, bounds, config.engine), start


def _most_scale(step_time: ScaledRooflineStepTime, unknown: str) -> float:
    """Return the scale at which every kind of work runs at what the GPU's datasheet promises."""
    card = step_time.gpu
    shares = (
        (card.gemm_efficiency, step_time.attention_efficiency)
        if unknown == "gemm_scale"
        else (card.memory_efficiency, card.kv_efficiency)
    )
    return min(_MOST, 1 / min(shares))


def _unsure(found: Fitted) -> list[str]:
    """Name the host's time per request, if these runs do not tell it from 0."""
    return [UNKNOWNS[2]] if found.x[2] < SURE * found.standard_errors[2] else []


def _blurred(found: Fitted) -> list[str]:
    """Name the efficiencies that the runs do not show."""
    shares = found.standard_errors[:2] / found.x[:2]
    measure = {"gemm_scale": "longer prompts", "memory_scale": "longer answers"}
    return [
        f"these runs do not show {name}: measure {measure[name]}, or more requests"
        for name, share in zip(UNKNOWNS, shares, strict=False)
        if not share <= _SHARP
    ]


def _at_bounds(found: Fitted, bounds: tuple[Floats, Floats]) -> list[str]:
    """Name the efficiencies that ended where no GPU goes."""
    low, high = bounds
    return [
        f"{name} ended at its bound, {1 / x:.2g}: the GPU, the model or the policy is not the one "
        f"that was measured"
        for name, x, least, most in zip(UNKNOWNS, found.x, low, high, strict=False)
        if name != UNKNOWNS[2] and (x <= least * 1.001 or x >= most * 0.999)
    ]


def _intervals(found: Fitted) -> dict[str, list[float]]:
    """Return 95 % intervals of the scales and of the host's seconds per request."""
    half = 1.96 * found.standard_errors
    low, high = np.maximum(found.x - half, 1e-9), found.x + half
    scales = {name: [1 / float(high[i]), 1 / float(low[i])] for i, name in enumerate(UNKNOWNS[:2])}
    request = [max(0.0, float(found.x[2] - half[2])) * _REQUEST_S, float(high[2]) * _REQUEST_S]
    return {**scales, UNKNOWNS[2]: request}
