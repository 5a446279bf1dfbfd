"""Capacity studies as folders of tables and pictures, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.simulate import versions

if TYPE_CHECKING:
    from busdoor.capacity.capacity import Capacity


def to_dict(capacity: Capacity, request_rate: float | None = None) -> dict[str, Any]:
    """Return the numbers as JSON has them: what is not a number is null.

    Parameters
    ----------
    capacity : Capacity
        What to tell of.
    request_rate : float, optional
        That has to be served: the plan for it is in `plan`.
    """
    planned = {} if request_rate is None else {"plan": _records(capacity.plan(request_rate))}
    return {
        "verdict": capacity.verdict(request_rate),
        "promise": str(capacity.promise),
        "slo": capacity.promise.to_dict(),
        "policies": _records(capacity.table),
        **planned,
        "replications": capacity.replications,
        "num_runs": capacity.num_runs,
        "num_requests": capacity.num_requests,
        "config": capacity.config.to_dict(),
        "versions": versions(),
    }


def save(capacity: Capacity, folder: Path, request_rate: float | None = None) -> Path:
    """Write capacity.json, table.csv, history.csv, points.csv, plan.csv (for a rate) and plots/capacity.png, .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "capacity.json").write_text(
        json.dumps(to_dict(capacity, request_rate), indent=2) + "\n", encoding="utf-8"
    )
    capacity.table.to_csv(folder / "table.csv")
    capacity.history.to_csv(folder / "history.csv", index=False)
    capacity.points.to_csv(folder / "points.csv", index=False)
    if request_rate is not None:
        capacity.plan(request_rate).to_csv(folder / "plan.csv")
    if len(capacity.points):
        from busdoor.plots import save_figure

        save_figure(capacity.plot_all(), folder / "plots" / "capacity")
    return folder


def _records(table: pd.DataFrame) -> dict[str, Any]:
    return json.loads(table.to_json(orient="index", double_precision=15))  # type: ignore[no-any-return]
