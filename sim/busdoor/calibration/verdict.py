"""What a validation comes to, in a few plain sentences."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from busdoor.calibration.bars import BELOW_LOAD
from busdoor.calibration.errors import REGIMES, as_percent, as_share
from busdoor.calibration.gain import THROUGHPUT

if TYPE_CHECKING:
    from busdoor.calibration.validation import Validation


def verdict(validation: Validation) -> str:
    """Say how large the errors are, what the gain is, and how many bars are met.

    Examples
    --------
    >>> from busdoor.calibration import validate
    >>> from busdoor.demo import introductory_scenario
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> print(verdict(validate(introductory_scenario(), LinearStepTime(base_s=1.1), ["bus", "door"])))
    On the measured batches, the step time is off by at most 10.0 % in all. The mean E2E latency is off by at most
    10.0 % (burst or overload). Under door, answers are complete 2.41× as soon as under bus, and 2.41× when simulated
    (...0.0 %). No bar applies: they are for loads below 0.8 and for runs that the calibration was not fitted to.
    """
    parts = [_steps(validation), _latency(validation), _gains(validation), _judged(validation)]
    return " ".join(part for part in parts if part)


def _steps(validation: Validation) -> str:
    totals = [abs(run.steps.total) for run in validation.runs if isfinite(run.steps.total)]
    return f"On the measured batches, the step time is off by at most {as_share(max(totals))} in all." if totals else ""


def _latency(validation: Validation) -> str:
    rows = validation.bars[validation.bars["quantity"] == "e2e_mean"].to_dict("records")
    errors = [f"{as_share(abs(row['error']))} ({_load(row['regime'])})" for row in rows]
    return f"The mean E2E latency is off by at most {', '.join(errors)}." if errors else ""


def _load(name: str) -> str:
    if name == REGIMES[-1][1]:
        return "burst or overload"
    return name if name.startswith("ρ") else f"ρ {name}"


def _gains(validation: Validation) -> str:
    """Tell the first pair, of saturated runs if there are any, and how far off the others are at most."""
    gains = validation.gain.sort_values("quantity", key=lambda own: own != THROUGHPUT, kind="stable").to_dict("records")
    if not gains:
        return ""
    others = [abs(gain["error"]) for gain in gains[1:]]
    rest = f" Of {len(others)} more pairs, the gain is off by at most {as_share(max(others))}." if others else ""
    return _gain(gains[0]) + rest.replace("1 more pairs", "another pair")


def _gain(gain: dict[Any, Any]) -> str:
    names, measured = [gain["continuous"], gain["static"]], f"{gain['measured']:.2f}×"
    simulated = f"{gain['simulated']:.2f}× when simulated ({as_percent(gain['error'])})"
    if gain["quantity"] == THROUGHPUT:
        return f"{names[0]} serves {measured} the tokens of {names[1]}, and {simulated}."
    return f"Under {names[0]}, answers are complete {measured} as soon as under {names[1]}, and {simulated}."


def _judged(validation: Validation) -> str:
    judged = validation.bars["met"].dropna()
    if len(judged):
        return f"{int(judged.sum())} of {len(judged)} bars are met."
    return (
        f"No bar applies: they are for loads below {BELOW_LOAD:g} and for runs that the calibration was not fitted to."
    )
