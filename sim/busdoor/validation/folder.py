"""Validations as folders of tables, runs and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.calibration.host_launch import on_host_of
from busdoor.calibration.quality import StepErrors
from busdoor.calibration.teacher_forcing import predicted_s, trace_of
from busdoor.core.import_paths import as_data
from busdoor.core.json import numbers, plain, read_object, write_json
from busdoor.core.progress import Report
from busdoor.core.saved import Keys, check_keys, read_csv, write_csv
from busdoor.core.study_folder import StudyFolder
from busdoor.plots.save import save_figure
from busdoor.results.result import Result, write_result
from busdoor.step_time import make_step_time
from busdoor.step_time.base import StepTime
from busdoor.validation.data import ValidationData
from busdoor.validation.figures import plot_e2e_ratio, plot_gain, plot_validation
from busdoor.validation.run import RunValidation
from busdoor.validation.thresholds import missed, threshold_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKER = "validation.json"
_KEYS: Keys = {"step_time": dict, "runs": dict, "about": dict}
_RUN: Keys = {
    "whole_batches": bool,
    "load": float,
    "step_time": dict,
    "batches": dict,
    "budget": dict,
}


def write(validation: ValidationData, place: StudyFolder, report: Report | None = None) -> Path:
    """Write a validation, and return its folder.

    It gets validation.json (all numbers), regimes.csv, bars.csv, gain.csv and e2e_ratio.csv where
    there are pairs, and for each run a table, its figures, and the folders of the measured and of
    the simulated run.
    """
    folder = place.part
    write_json(folder / MARKER, to_dict(validation))
    write_csv(validation.by_regime, folder / "regimes.csv")
    write_csv(threshold_table(validation), folder / "bars.csv", index=False)
    for run in validation.runs:
        write_csv(run.table, folder / f"{run.name}.csv")
        write_result(run.measured, folder / f"{run.name}_measured")
        write_result(run.simulated, folder / f"{run.name}_simulated")
    if len(validation.gain):
        write_csv(validation.gain, folder / "gain.csv", index=False)
    if len(validation.e2e_ratio):
        write_csv(validation.e2e_ratio, folder / "e2e_ratio.csv", index=False)
    place.kept = True
    _draw_all(validation, folder, report)
    return place.publish()


def to_dict(validation: ValidationData) -> dict[str, Any]:
    """Return the numbers as JSON has them."""
    return {
        "runs": {run.name: run.to_dict() for run in validation.runs},
        "regimes": {str(name): plain(dict(row)) for name, row in validation.by_regime.iterrows()},
        "knee": plain(validation.knee),
        "gain": plain(validation.gain.to_dict("records")),
        "e2e_ratio": plain(validation.e2e_ratio.to_dict("records")),
        "bars": plain(threshold_table(validation).to_dict("records")),
        "missed": missed(validation),
        "spread": plain(validation.spread._asdict()),
        "fitted_to": validation.fitted_to,
        "step_time": validation.step_time.describe(),
        "about": dict(validation.about),
    }


def _draw_all(validation: ValidationData, folder: Path, report: Report | None) -> None:
    for done, run in enumerate(validation.runs):
        if report:
            report(done / len(validation.runs), f"drawing {run.name}")
        _draw(plot_validation(run), folder / run.name)
    if len(validation.gain):
        _draw(plot_gain(validation), folder / "gain")
    if len(validation.e2e_ratio):
        _draw(plot_e2e_ratio(validation), folder / "e2e_ratio")


def _draw(figure: Figure, stem: Path) -> None:
    figure.draw_without_rendering()  # lays it out, once for both files
    figure.set_layout_engine("none")
    save_figure(figure, stem)


def load(folder: Path) -> ValidationData:
    """Read a saved validation back, with the numbers that it had then.

    Raises ValueError if the folder holds none.
    """
    if not (folder / MARKER).exists():
        raise ValueError(f"{folder} holds no validation: it has no {MARKER}")
    saved = read_object(folder / MARKER)
    check_keys(saved, str(folder / MARKER), _KEYS)
    with as_data():
        step_time = make_step_time(**saved["step_time"])
    runs = [_run(folder, name, own, step_time) for name, own in saved["runs"].items()]
    return ValidationData(runs, step_time, saved["about"])


def _run(folder: Path, name: str, saved: Mapping[str, Any], step_time: StepTime) -> RunValidation:
    check_keys(saved, f"{folder / MARKER}: runs.{name}", _RUN)
    measured = Result.load(folder / f"{name}_measured")
    step_time, host_launch = on_host_of(step_time, measured)
    return RunValidation(
        name=name,
        measured=measured,
        simulated=Result.load(folder / f"{name}_simulated"),
        trace=trace_of(measured),
        whole_batches=saved["whole_batches"],
        load=numbers(saved)["load"],
        steps=StepErrors(**numbers(saved["step_time"])),
        agreement=numbers(saved["batches"]),
        table=read_csv(folder / f"{name}.csv", index_col=[0, 1]),
        budget=pd.Series(numbers(saved["budget"])),
        predicted_s=predicted_s(measured, step_time),
        host_launch=host_launch,
    )
