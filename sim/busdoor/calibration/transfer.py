"""A calibration of one GPU on another, by the ratio of their bandwidths and matrix rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from busdoor.calibration.calibration import Calibration
from busdoor.catalog import GPU, Dtype, gpu, model
from busdoor.step_time.roofline import RooflineStepTime
from busdoor.step_time.scaled_roofline import ScaledRooflineStepTime
from busdoor.step_time.terms import TERMS, Term

_DTYPES: dict[str, Dtype] = {"float8_e4m3fn": "fp8", "fp8": "fp8", "int8": "int8", "int4": "int4"}


def transfer(calibration: Calibration, target: str | GPU) -> Calibration:
    """Re-scale a calibration to a GPU that was not measured.

    Parameters
    ----------
    calibration : Calibration
        Of a GPU of the catalogue.
    target : str or GPU
        Where to.

    Returns
    -------
    Calibration
        Keys that decodes read scale with the bandwidth that attention reaches; prefill attention
        with the matrix rate. Of the base, reading the weights (its time on the measured GPU's
        roofline; all of the base where the model's shape is not known) scales with the bandwidth.
        Launches, requests and the host stay. It has neither errors nor intervals: nothing was
        measured. A scaled roofline keeps its scales: it is as much of what the roofline says there.

    Notes
    -----
    GEMMs take S(t) seconds for t positions: W, in which the weights are read, where t is small, and
    t times the matrix rate's seconds where it is large. Between them, too, S is a function of both
    that doubles when both double. With W scaled by r and the matrix seconds by m, it is
    r S(t m / r): slopes scale with m, and breaks with r / m.

    Raises
    ------
    ValueError
        If either GPU is not in the catalogue.

    Examples
    --------
    >>> transfer(Calibration.load("vllm-cpu"), "h200")
    Traceback (most recent call last):
    ValueError: the calibration is of 'cpu, 1 thread', which is no GPU of the catalogue; only those can be transferred
    """
    source, target = _source(calibration), gpu(target)
    if isinstance(calibration.step_time, ScaledRooflineStepTime):
        return _rescaled(calibration, calibration.step_time, source, target)
    dtype = _DTYPES.get(str(calibration.about.get("dtype", "")), "bf16")
    reading = (source.bandwidth_bytes_per_s * source.memory_efficiency) / (
        target.bandwidth_bytes_per_s * target.memory_efficiency
    )
    keys = (source.bandwidth_bytes_per_s * source.kv_efficiency) / (
        target.bandwidth_bytes_per_s * target.kv_efficiency
    )
    matrix = (source.rate(dtype) * source.gemm_efficiency) / (
        target.rate(dtype) * target.gemm_efficiency
    )
    old = calibration.step_time
    assert not isinstance(old, ScaledRooflineStepTime)  # it went its own way
    weights_s = min(old.base_s, _weights_s(calibration, source, dtype))
    name = f"{calibration.about.get('name', 'calibration')} on {target.name}"
    ratios = {"reading": reading, "keys": keys, "matrix": matrix}
    scaled = {
        term.name: getattr(old, term.name) * ratios[term.scales_with]
        for term in TERMS
        if _scales(term)
    }
    scaled |= {
        "base_s": old.base_s - weights_s + weights_s * reading,
        "per_token_s": tuple(seconds * matrix for seconds in old.per_token_s),
        "token_breaks": tuple(
            max(i + 1, round(at * reading / matrix)) for i, at in enumerate(old.token_breaks)
        ),
    }
    step_time = replace(old, **scaled, calibration=name)
    about = {
        **calibration.about,
        "name": name,
        "gpu": target.name,
        "transferred_from": source.name,
        "ratios": ratios,
    }
    return Calibration(step_time, {}, {}, {}, about)


def _rescaled(
    calibration: Calibration, old: ScaledRooflineStepTime, source: GPU, target: GPU
) -> Calibration:
    """Return a scaled roofline on another GPU, at the same shares of what is said of it."""
    name = f"{calibration.about.get('name', 'calibration')} on {target.name}"
    step_time = replace(old, gpu=target, fitted_to=name)
    about = {**calibration.about, "name": name, "gpu": target.name, "transferred_from": source.name}
    about.pop("server", None)  # its memory is the other GPU's
    return Calibration(step_time, {}, {}, {}, about)


def _scales(term: Term) -> bool:
    return bool(term.scales_with) and not term.segmented


def _source(calibration: Calibration) -> GPU:
    name = str(calibration.about.get("gpu", ""))
    try:
        return gpu(name)
    except ValueError:
        raise ValueError(
            f"the calibration is of {name!r}, which is no GPU of the catalogue; only those can be "
            f"transferred"
        ) from None


def _weights_s(calibration: Calibration, source: GPU, dtype: Dtype) -> float:
    """Seconds to read the weights on the measured GPU; infinite if the model is not known."""
    shape: Any = calibration.about.get("model_shape") or calibration.about.get("model")
    try:
        costs = RooflineStepTime(gpu=source, model=model(shape), weight_dtype=dtype).costs
    except (ValueError, TypeError):
        return float("inf")
    return costs.dense_read_s + costs.head_read_s + costs.experts_s(1)
