"""Capacity studies as folders of tables and pictures, and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.capacity.data import CapacityData, Drawable, Saved
from busdoor.capacity.figures import plot_day, plot_targets
from busdoor.capacity.sizing import Day
from busdoor.capacity.summary_text import verdict
from busdoor.core.json import plain, read_object, write_json
from busdoor.core.saved import (
    REPAIR,
    Keys,
    check_columns,
    check_keys,
    check_rows,
    read_csv,
    write_csv,
)
from busdoor.core.study_folder import StudyFolder
from busdoor.metrics.slo import SLO
from busdoor.plots import save_figure
from busdoor.simulator.describe import versions

# What capacity.json has, each of its policies, and points.csv.
_KEYS: Keys = {
    "verdict": str,
    "slo": dict,
    "slo_text": str,
    "policies": dict,
    "replications": int,
    "num_runs": int,
    "num_requests": int,
    "config": dict,
    "versions": dict,
    "num_points?": int,
}
_ROW: Keys = {"request_rate": float, "low": float, "high": float, "binds?": str, "reason?": str}
_NUMBERS = ("request_rate", "value")
_TEXTS = ("policy", "target")


def to_dict(capacity: CapacityData, request_rate: float | None = None) -> dict[str, Any]:
    """Return the numbers as JSON (null for what is not a number), and `plan` for a rate."""
    planned = {} if request_rate is None else {"plan": capacity.plan(request_rate).to_dict("index")}
    content = {
        "complete": capacity.complete,
        "verdict": verdict(capacity, request_rate),
        "slo": capacity.slo.to_dict(),
        "slo_text": str(capacity.slo),
        "policies": capacity.table.to_dict("index"),
        **planned,
        **({"uncertainty": capacity.uncertainty} if capacity.uncertainty else {}),
        "replications": capacity.replications,
        "num_refused": capacity.refused.num,
        "refused_share": capacity.refused.share,
        "num_runs": capacity.num_runs,
        "num_requests": capacity.num_requests,
        "prediction": capacity.config.prediction,
        "config": capacity.config.to_dict(),
        "versions": versions(),
        "num_points": len(capacity.points),
    }
    return {key: plain(value) for key, value in content.items()}


def write(capacity: CapacityData, place: StudyFolder, request_rate: float | None = None) -> Path:
    """Write capacity.json, table, history, points and plan (for a rate) as CSV, and the plots."""
    folder = place.part
    write_json(folder / "capacity.json", to_dict(capacity, request_rate))
    write_csv(_finite(capacity.table), folder / "table.csv")
    write_csv(_finite(capacity.history), folder / "history.csv", index=False)
    write_csv(_finite(capacity.points), folder / "points.csv", index=False)
    if request_rate is not None:
        write_csv(capacity.plan(request_rate), folder / "plan.csv")
    place.kept = True
    save_plots(capacity, folder / "plots")
    return place.publish()


def write_day(capacity: CapacityData, day: Day, folder: Path) -> None:
    """Write servers by hour (day.csv), what they cost (bill.csv), and a figure of both."""
    hours = capacity.plan_day(day.hourly_rps, day.floor)
    write_csv(hours, folder / "day.csv")
    write_csv(capacity.bill_day(day), folder / "bill.csv")
    figure = plot_day(hours).get_figure()
    save_figure(figure, folder / "plots" / "day")  # type: ignore[arg-type]


def day_dict(capacity: CapacityData, day: Day) -> dict[str, Any]:
    """Return servers by hour, and what they cost by policy, as JSON."""
    hours = capacity.plan_day(day.hourly_rps, day.floor).reset_index()
    return {
        "hours": plain(hours.to_dict("records")),
        "day": plain(capacity.bill_day(day).to_dict("index")),
    }


def load(folder: Path) -> Saved:
    """Read what `write` wrote.

    Raises ValueError if capacity.json is not one of these.
    """
    file = folder / "capacity.json"
    study = read_object(file)
    check_keys(study, str(file), _KEYS)
    for name, row in study["policies"].items():
        check_keys(row, f"{file}: policies.{name}", _ROW)
    try:
        slo = SLO.from_table(study["slo"])
    except ValueError as error:
        raise ValueError(f"{file}: slo: {error}; {REPAIR}") from error
    points = check_columns(read_csv(folder / "points.csv"), folder / "points.csv", _NUMBERS, _TEXTS)
    check_rows(points, folder / "points.csv", study.get("num_points"), file.name)
    return Saved(slo, pd.DataFrame.from_dict(study["policies"], orient="index"), points, study)


def save_plots(study: Drawable, folder: Path) -> list[Path]:
    """Draw capacity.png and capacity.svg into a folder; nothing where no rate was tried."""
    if not len(study.points):
        return []

    return save_figure(plot_targets(study), folder / "capacity")


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with NaN for infinity, as in JSON."""
    return table.replace([float("inf"), float("-inf")], float("nan"))
