"""Errors written down as a gate: a change to the simulator must not make them larger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from busdoor.core.json import plain
from busdoor.validation.data import ValidationData

if TYPE_CHECKING:
    import pandas as pd


_PARTS = ("gain", "e2e_ratio", "knee")
TOLERANCE = 0.005  # issue 4, "Bars": within the recorded errors + 0.5 points


def recorded_errors(validation: ValidationData) -> dict[str, Any]:
    """Collect a validation's relative errors as plain numbers, to keep beside measured runs.

    `runs`: for each run by name, as in `RunValidation.errors`; `gain` and `e2e_ratio`: the error for
    each pair, "continuous / static"; `knee`: {"rate": error}. What is not a number is None, as JSON
    has it (TOML leaves it out).

    >>> from busdoor.validation.validate import validate
    >>> from busdoor.comparison.demo import introductory_scenario
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> slower = LinearStepTime(base_s=1.0, per_request_s=0.1)
    >>> kept = recorded_errors(validate(introductory_scenario(), slower, ["bus", "door"]))
    >>> round(kept["runs"]["door"]["step_total"], 3), round(kept["e2e_ratio"]["door / bus"], 3), kept["knee"]
    (0.21, 0.075, {'rate': None})
    """
    return {
        "runs": {run.name: plain(run.errors) for run in validation.runs},
        "gain": _of_pairs(validation.gain),
        "e2e_ratio": _of_pairs(validation.e2e_ratio),
        "knee": plain({"rate": validation.knee["error"]}),
    }


def _of_pairs(table: pd.DataFrame) -> dict[str, Any]:
    rows = table[["continuous", "static", "error"]].itertuples(index=False, name=None)
    errors: dict[str, Any] = plain(
        {f"{continuous} / {static}": error for continuous, static, error in rows}
    )
    return errors


def drifted(
    validation: ValidationData, recorded: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[str]:
    """Return which errors are larger now than what `recorded_errors` returned then.

    A sentence for each error beyond |recorded| + tolerance (a share: 0.005 is half a point), for
    what has a number on one side only, and for each run on one side only. Empty if nothing has
    drifted; an error that has become smaller is fine.

    >>> from busdoor.validation.validate import validate
    >>> from busdoor.comparison.demo import introductory_scenario
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> steps = LinearStepTime(base_s=1.0), LinearStepTime(base_s=1.1)
    >>> good, bad = (validate(introductory_scenario(), own, ["bus", "door"]) for own in steps)
    >>> drifted(good, recorded_errors(good))
    []
    >>> print(drifted(bad, recorded_errors(good))[0])
    bus: the error of step_mean_absolute is +10.00 %; recorded was +0.00 %, and 0.5 points more are allowed
    """
    now = recorded_errors(validation)
    then = {part: {} for part in ("runs", *_PARTS)} | dict(recorded)
    sentences = [
        f"{name} is recorded, but was not validated now"
        for name in then["runs"]
        if name not in now["runs"]
    ]
    for name, errors in now["runs"].items():
        if name in then["runs"]:
            sentences += _larger(name, errors, then["runs"][name], tolerance)
        else:
            sentences.append(f"{name} was validated, but has no recorded errors")
    for part in _PARTS:
        sentences += _larger(part, now[part], then[part], tolerance)
    return sentences


def _larger(
    what: str, now: Mapping[str, float | None], then: Mapping[str, float | None], tolerance: float
) -> Iterator[str]:
    for key in dict.fromkeys((*now, *then)):
        ours, theirs = now.get(key), then.get(key)
        subject = f"{what}: the error of {key}"
        if ours is None and theirs is not None:
            yield f"{subject} is no longer known; recorded was {_points(theirs)}"
        elif ours is not None and theirs is None:
            yield f"{subject} is {_points(ours)}, and was not recorded"
        elif ours is not None and theirs is not None and abs(ours) > abs(theirs) + tolerance:
            allowed = (
                f"recorded was {_points(theirs)}, and {100 * tolerance:g} points more are allowed"
            )
            yield f"{subject} is {_points(ours)}; {allowed}"


def _points(error: float) -> str:
    return f"{100 * error:+.2f} %"
