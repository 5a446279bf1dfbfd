"""An H200 that was predicted from an H100's profile, and measured afterwards."""

from __future__ import annotations

import json

import pandas as pd

from busdoor.calibration import Calibration
from busdoor.results.result import Result
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation
from lessons.twins import RESULTS

_FOLDER = RESULTS / "h200-from-h100"


def written_down() -> dict[str, dict[str, float]]:
    """Latencies (s) and tokens per second predicted, by run, before an H200 was measured.

    Examples
    --------
    >>> round(written_down()["azure-conv-0.75"]["e2e mean"], 2)
    2.53
    """
    predicted: dict[str, dict[str, float]] = json.loads(
        (_FOLDER / "prediction.json").read_text(encoding="utf-8")
    )["runs"]
    return predicted


def transferred() -> Calibration:
    """Return the H100's calibration as it was re-scaled to an H200.

    Examples
    --------
    >>> transferred().about["gpu"], transferred().about["transferred_from"]
    ('h200', 'h100')
    """
    return Calibration.load(_FOLDER / "calibration.toml")


def on_h200(calibration: Calibration) -> Validation:
    """Validate a calibration against the runs that were measured on an H200."""
    names = list(written_down())
    runs = [Result.load(_FOLDER / "runs" / name) for name in names]
    return validate(runs, calibration.step_time, names, about=calibration.about)


def predicted_and_measured(validation: Validation) -> pd.DataFrame:
    """Return E2E latencies (s) written beforehand and as measured; errors in per cent.

    Parameters
    ----------
    validation : Validation
        As `on_h200` makes it; its measured side is what counts.

    Returns
    -------
    DataFrame
        Rows for mean and p99 of each run.

    Examples
    --------
    >>> table = predicted_and_measured(on_h200(transferred()))
    >>> len(table), bool(table["error_%"].abs().max() < 8)
    (10, True)
    """
    predicted = written_down()
    rows = {
        (run.name, statistic): {
            "predicted_s": predicted[run.name][f"e2e {statistic}"],
            "measured_s": run.table["measured"]["e2e", statistic],
        }
        for run in validation.runs
        for statistic in ("mean", "p99")
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["error_%"] = 100 * (table["predicted_s"] / table["measured_s"] - 1)
    return table
