"""Measured pairs of static and continuous batching, as points of the map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.calibration import Calibration, load_measured
from busdoor.validation.data import ValidationData
from busdoor.validation.folder import MARKER as VALIDATED
from busdoor.validation.twin_folder import CALIBRATION, RUNS
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation

MEASURED: Sequence[str] = (
    "machine", "run", "load", "batch_size", "spread", "measured", "predicted", "error", "is_gain",
)  # fmt: skip


def measured_points(validations: Iterable[tuple[str, ValidationData]]) -> pd.DataFrame:
    """Return the measured pairs of machines' validations, each at its place on the map."""
    rows: list[dict[str, Any]] = []
    for machine, found in validations:
        runs = {run.name: run for run in found.runs}
        for is_gain, table in ((True, found.gain), (False, found.e2e_ratio)):
            for pair in table.to_dict("records"):
                door, bus = runs[pair["continuous"]], runs[pair["static"]]
                outputs = door.trace.output_tokens
                rows.append(
                    {
                        "machine": machine,
                        "run": pair["continuous"],
                        "load": door.load if isfinite(door.load) else inf,
                        "batch_size": _rows_of(bus.measured.iterations),
                        "spread": float(outputs.std() / outputs.mean()),
                        "measured": pair["measured"],
                        "predicted": pair["simulated"],
                        "error": pair["error"],
                        "is_gain": is_gain,
                    }
                )
    return pd.DataFrame(rows, columns=list(MEASURED))


def measured_pairs(folder: Path) -> ValidationData:
    """Return the runs of a folder that may be pairs of one trace, beside their simulation.

    The folder is of `busdoor validate`, or has calibration.toml and the measured runs in runs/.
    """
    if (folder / VALIDATED).exists():
        return Validation.load(folder)
    places = sorted(path for path in (folder / RUNS).glob("*") if path.is_dir())
    if not places or not (folder / CALIBRATION).is_file():
        raise ValueError(
            f"{folder} is no folder of busdoor validate, and has no {CALIBRATION} beside {RUNS}/"
        )
    found = {place.name: load_measured(place) for place in places}
    sizes = {name: _size(result.requests) for name, result in found.items()}
    kept = [name for name in found if list(sizes.values()).count(sizes[name]) > 1]
    calibration = Calibration.load(folder / CALIBRATION)
    return validate([found[name] for name in kept], calibration.step_time, kept)


def _size(requests: pd.DataFrame) -> tuple[int, ...]:
    tokens = requests[["input_tokens", "output_tokens"]].sum().tolist()
    return (len(requests), *tokens)


def _rows_of(iterations: pd.DataFrame) -> int:
    return int(iterations["num_requests"].max()) if len(iterations) else 1
