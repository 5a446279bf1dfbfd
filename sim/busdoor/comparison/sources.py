"""Where an answer's uncertainty comes from: draws of the calibration, and the model's error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np

from busdoor.catalog import engine, engine_names
from busdoor.catalog.dtypes import Dtype
from busdoor.catalog.engines import bits_of
from busdoor.config import Config
from busdoor.core.registry import checked
from busdoor.metrics.statistics import CONFIDENCE, student_t
from busdoor.step_time import StepTime
from busdoor.step_time.calibration_files import read_calibration_tables, read_draws
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import regime

_SD_OF_MEAN = sqrt(pi / 2)  # standard deviation over mean absolute error, of a normal law
_Z = 1.96  # of a normal law: an interval of 95 % is so many standard deviations to either side
EXACT = "linear"  # a step time that is given, not a model of a machine


class ModelError(NamedTuple):
    """Relative error of the step time at a load: standard deviation, and what says so."""

    sd: float
    source: str


def model_error(config: Config, load: float, validation: ValidationData | None) -> ModelError:
    """Return how far the model is off at a load.

    From a validation's runs in the load's regime (their mean TPOT; E2E where there is none): the
    fewer, the wider, as Student's t is. Else the engine preset's `checked` record, else the worst
    error measured so far, named.
    """
    if config.step_time.describe()["name"] == EXACT:
        return ModelError(0.0, "a linear step time is taken as exact")
    if validation is not None and validation.runs:
        return _validated(validation, regime(load)) or _worst(config)
    return _recorded(config) or _worst(config)


def _validated(validation: ValidationData, wanted: str) -> ModelError | None:
    own = [run for run in validation.runs if run.regime == wanted]
    errors = np.array([_step_error(run.errors) for run in own or validation.runs])
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return None
    if not own:
        return ModelError(
            float(np.abs(errors).max()), f"no run validated at {wanted}: the worst of the others"
        )
    many = len(errors)
    sd = float(np.sqrt((errors**2).mean())) * student_t(CONFIDENCE, many) / _Z
    return ModelError(sd, f"{many} validated run{'s' * (many > 1)} at {wanted}")


def _step_error(errors: dict[str, float]) -> float:
    tpot = errors.get("tpot_mean", np.nan)
    return tpot if np.isfinite(tpot) else errors.get("e2e_mean", np.nan)


def _recorded(config: Config) -> ModelError | None:
    """Return the engine preset's record for this kind of server, if there is one."""
    if config.engine is None:
        return None
    name = str(config.step_time.describe()["name"])
    one = config.engine.record(config.gpu.tp, _weight_dtype(config), name)
    if one is None:
        return None
    source = f"{one.num_points} measured loads of {config.engine.title}"
    return ModelError(_SD_OF_MEAN * one.tpot_error, source)


def _worst(config: Config) -> ModelError:
    """Return the worst error measured so far, of weights of as many bits if there is a record."""
    every = [(one.tpot_error, name, one) for name in engine_names() for one in engine(name).checked]
    alike = [row for row in every if row[2].bits == bits_of(_weight_dtype(config))]
    error, name, one = max(alike or every, key=lambda row: row[0])
    how = f"{name}, {one.bits} bits{', tensor parallel' * one.tensor_parallel}, {one.step_time}"
    return ModelError(
        _SD_OF_MEAN * error, f"not checked here: the worst error measured so far, {how}"
    )


def _weight_dtype(config: Config) -> Dtype:
    return config.gpu.weight_dtype or "bf16"


def step_time_draws(config: Config, count: int) -> tuple[list[StepTime], str]:
    """Return step times as the calibration's data leave them possible, and what says so.

    Draws of the fit keep what goes together; a file of format 1 has intervals alone, taken as
    independent. None for a step time that was not fitted.
    """
    step_time = config.step_time
    path = _file_of(step_time)
    if path is None:
        return [], "not calibrated"
    rows = read_draws(path)
    said = f"{len(rows)} draws of the fit"
    if not rows:
        rows = _from_intervals(read_calibration_tables(path).get("intervals", {}), count)
        said = "intervals of the terms, as if independent (a file without draws)"
    fields = {key: value for key, value in step_time.describe().items() if key != "name"}
    chosen = rows[:count]
    return [checked(type(step_time), {**fields, **row}, f"{path}: [draws]") for row in chosen], said


def throughput_sds(
    config: Config,
    closed_rps: Callable[[Config], float],
    validation: ValidationData | None = None,
    draws: int = 20,
) -> tuple[float, float]:
    """Return how far calibration and model may move a throughput: relative standard deviations.

    `closed_rps` is the throughput of a configuration in closed form: its ratio over draws of the
    calibration stands for that of the simulated one.
    """
    models, _ = step_time_draws(config, draws)
    logs = [np.log(closed_rps(replace(config, step_time=model))) for model in models]
    return float(np.std(logs)) if logs else 0.0, model_error(config, 1.0, validation).sd


def _file_of(step_time: StepTime) -> str | None:
    path = getattr(step_time, "path", None)
    return None if path is None else str(path)


def _from_intervals(intervals: dict[str, Any], count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)

    def drawn(ends: Sequence[Any]) -> Any:
        if ends and isinstance(ends[0], list):
            return [drawn(own) for own in ends]
        low, high = ends
        return max(0.0, float(rng.normal((low + high) / 2, (high - low) / (2 * _Z))))

    return [{term: drawn(ends) for term, ends in intervals.items()} for _ in range(count)]
