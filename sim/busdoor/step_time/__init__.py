"""Step-time models: how many seconds an iteration takes.

A model is named in a configuration by a name of `STEP_TIMES`, or by the import path of a class of
your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.core.registry import Registry, checked
from busdoor.step_time.base import LineStepTime, StepTime
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.calibration_files import kind_of
from busdoor.step_time.linear import LinearStepTime
from busdoor.step_time.operators import OperatorStepTime
from busdoor.step_time.roofline import RooflineStepTime
from busdoor.step_time.scaled_roofline import ScaledRooflineStepTime

STEP_TIMES: Registry[type[StepTime]] = Registry(
    "a step-time model",
    StepTime,
    {
        "linear": LinearStepTime,
        "roofline": RooflineStepTime,
        "calibrated": CalibratedStepTime,
        "operators": OperatorStepTime,
        "scaled_roofline": ScaledRooflineStepTime,
    },
)

__all__ = [
    "STEP_TIMES",
    "CalibratedStepTime",
    "LineStepTime",
    "LinearStepTime",
    "OperatorStepTime",
    "RooflineStepTime",
    "ScaledRooflineStepTime",
    "StepTime",
    "as_step_time",
    "make_step_time",
    "step_time_class",
    "step_time_table",
]


def step_time_class(name: str) -> type[StepTime]:
    """Class of a step-time model, by name or import path.

    Parameters
    ----------
    name : str
        A name of `STEP_TIMES`, or "package.module:Class".

    Raises
    ------
    ValueError
        If there is none of that name (the message has the nearest one), or what is imported is no
        `StepTime`.

    Examples
    --------
    >>> step_time_class("linear").__name__, step_time_class("busdoor.step_time.linear:LinearStepTime").__name__
    ('LinearStepTime', 'LinearStepTime')
    >>> step_time_class("roofine")
    Traceback (most recent call last):
    ValueError: 'roofine' is not a step-time model; did you mean 'roofline'? (known: ...)
    """
    return STEP_TIMES.find(name)


def step_time_table(given: Any) -> Any:
    """Return a step time's table [step_time]; a table, and what is no step time, as it is.

    Parameters
    ----------
    given : str, StepTime or mapping
        A name of `STEP_TIMES`, an import path, a calibration's file or name; one of our models; a
        table.

    Examples
    --------
    >>> step_time_table("h100-llama-3.1-8b"), step_time_table("roofline")
    ({'name': 'calibrated', 'path': 'h100-llama-3.1-8b'}, {'name': 'roofline'})
    >>> step_time_table(LinearStepTime(base_s=0.1))["base_s"]
    0.1
    """
    if isinstance(given, Path):
        return {"name": "calibrated", "path": str(given)}
    if isinstance(given, str):
        if given in STEP_TIMES or ":" in given:
            return {"name": given}
        return {"name": "calibrated", "path": given}
    return given.describe() if type(given) in STEP_TIMES.values() else given


def as_step_time(given: StepTime | str | Mapping[str, Any]) -> StepTime:
    """Return a step-time model as it is, or make one of a name, a calibration or a table.

    Raises
    ------
    ValueError
        If it is nothing of the kind, in one sentence.

    Examples
    --------
    >>> as_step_time("h100-llama-3.1-8b").calibration
    'h100-llama-3.1-8b'
    """
    if isinstance(given, StepTime):
        return given
    table = step_time_table(given)
    if not isinstance(table, Mapping) or "name" not in table:
        raise ValueError(
            f"step_time is {given!r}; it must be a StepTime, a calibration's name or file, or a "
            f"table with a name"
        )
    return make_step_time(**table)


def make_step_time(name: str, **parameters: Any) -> StepTime:
    """Make a step-time model, from the table [step_time] of a configuration.

    Parameters
    ----------
    name : str
        As `step_time_class`; a calibration's file may hold another kind than `calibrated`.
    **parameters
        The model's own.

    Raises
    ------
    ValueError
        If the name is not known or a parameter is wrong, in one sentence.

    Examples
    --------
    >>> make_step_time("roofline", gpu="H100", model="llama-3.1-8b", tp=2).describe()["tp"]
    2
    >>> make_step_time("linear", base_s=-1)
    Traceback (most recent call last):
    ValueError: [step_time] base_s = -1: input should be greater than or equal to 0
    >>> make_step_time("linear", base_s=1, per_tokens_s=1)
    Traceback (most recent call last):
    ValueError: [step_time]: 'per_tokens_s' is not a field of it; did you mean 'per_token_s'? (known: base_s, ...)
    """
    kind = kind_of(parameters.get("path")) if name == "calibrated" else name
    return checked(step_time_class(kind), parameters, "[step_time]")
