"""What a validation comes to, in a few plain sentences."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from busdoor.core.format import as_percent, as_share
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import REGIMES
from busdoor.validation.thresholds import BELOW_LOAD, threshold_table

if TYPE_CHECKING:
    import pandas as pd


def summary_text(validation: ValidationData) -> str:
    """Return how large the errors are, what the gain is, and how many bars are met.

    >>> from busdoor.validation.validate import validate
    >>> from busdoor.comparison.demo import introductory_scenario
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> print(summary_text(validate(introductory_scenario(), LinearStepTime(base_s=1.1), ["bus", "door"])))
    On the measured batches, steps are off by at most 10.0 % each (mean of a run) and 10.0 % in all.
    The mean E2E latency is off by at most 10.0 % (burst or overload). Answers take 2.41× as long
    under bus as under door (E2E ratio), and 2.41× when simulated (...0.0 %).
    No bar applies: they are for loads below 0.8 and for runs that the calibration was not fitted to.
    """
    bars = threshold_table(validation)
    parts = [_steps(validation), _latency(bars), _gains(validation), _judged(bars)]
    return " ".join(part for part in parts if part)


def _steps(validation: ValidationData) -> str:
    known = [run.steps for run in validation.runs if isfinite(run.steps.total)]
    if not known:
        return ""
    each, total = max(own.mean_absolute for own in known), max(abs(own.total) for own in known)
    return (
        f"On the measured batches, steps are off by at most {as_share(each)} each (mean of a run) "
        f"and {as_share(total)} in all."
    )


def _latency(bars: pd.DataFrame) -> str:
    rows = bars[bars["quantity"] == "e2e_mean"].to_dict("records")
    errors = [f"{as_share(abs(row['error']))} ({_load(row['regime'])})" for row in rows]
    return f"The mean E2E latency is off by at most {', '.join(errors)}." if errors else ""


def _load(name: str) -> str:
    if name == REGIMES[-1][1]:
        return "burst or overload"
    return name if name.startswith("ρ") else f"ρ {name}"


def _gains(validation: ValidationData) -> str:
    """Return the first gain and the first E2E ratio, and how far off the others are at most."""
    sentences = [
        _pairs(validation.gain, "gain", "{0} serves {2} the saturated tokens/s of {1} (gain)"),
        _pairs(
            validation.e2e_ratio,
            "E2E ratio",
            "Answers take {2} as long under {1} as under {0} (E2E ratio)",
        ),
    ]
    return " ".join(filter(None, sentences))


def _pairs(table: pd.DataFrame, name: str, words: str) -> str:
    if not len(table):
        return ""
    first, *others = table.to_dict("records")
    sentence = words.format(first["continuous"], first["static"], f"{first['measured']:.2f}×")
    sentence += f", and {first['simulated']:.2f}× when simulated ({as_percent(first['error'])})."
    if not others:
        return sentence
    most = as_share(max(abs(row["error"]) for row in others))
    count = "another pair" if len(others) == 1 else f"{len(others)} more pairs"
    return f"{sentence} Of {count}, the {name} is off by at most {most}."


def _judged(bars: pd.DataFrame) -> str:
    judged = bars["met"].dropna()
    if len(judged):
        return f"{int(judged.sum())} of {len(judged)} bars are met."
    return (
        f"No bar applies: they are for loads below {BELOW_LOAD:g} and for runs that the "
        f"calibration was not fitted to."
    )
