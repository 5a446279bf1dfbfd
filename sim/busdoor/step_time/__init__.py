"""Step-time models: how many seconds an iteration takes.

A model is named in a configuration by a name of `STEP_TIMES`, or by the import path of a class of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from busdoor.names import checked, import_class, unknown
from busdoor.step_time.base import LineStepTime, StepTime
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.linear import LinearStepTime
from busdoor.step_time.roofline import RooflineStepTime

STEP_TIMES: Mapping[str, type[StepTime]] = {
    "linear": LinearStepTime,
    "roofline": RooflineStepTime,
    "calibrated": CalibratedStepTime,
}

__all__ = [
    "STEP_TIMES",
    "CalibratedStepTime",
    "LineStepTime",
    "LinearStepTime",
    "RooflineStepTime",
    "StepTime",
    "make_step_time",
    "step_time_class",
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
        If there is none of that name (the message has the nearest one), or what is imported is no `StepTime`.

    Examples
    --------
    >>> step_time_class("linear").__name__, step_time_class("busdoor.step_time.linear:LinearStepTime").__name__
    ('LinearStepTime', 'LinearStepTime')
    >>> step_time_class("roofine")
    Traceback (most recent call last):
    ValueError: 'roofine' is not a step-time model; did you mean 'roofline'? (known: calibrated, linear, roofline)
    """
    if ":" not in name:
        if name not in STEP_TIMES:
            raise unknown("a step-time model", name, STEP_TIMES)
        return STEP_TIMES[name]
    return import_class(name, StepTime, "a step-time model")


def make_step_time(name: str, **parameters: Any) -> StepTime:
    """Make a step-time model, as the table [step_time] of a configuration says.

    Parameters
    ----------
    name : str
        As `step_time_class`.
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
    return checked(step_time_class(name), parameters, "[step_time]")
