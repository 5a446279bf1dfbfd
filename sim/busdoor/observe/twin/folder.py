"""What the folder of a server's twin holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from busdoor.calibration.import_logs import ENGINE_FOLDER
from busdoor.results.result import Result

RUNS, PREDICTIONS, CALIBRATION = "runs", "predictions", "calibration.toml"
TABLE, PARTS, NEXT = "predictions.csv", "parts.json", "next.json"


@dataclass(frozen=True)
class Seen:
    """One run: what the client saw, and what the engine recorded if it did."""

    client: Result
    engine: Result | None


def runs_in(folder: Path, names: Sequence[str]) -> list[Seen]:
    """Return runs that a twin's folder has; ValueError if one is not there whole."""
    return [load_run(folder / RUNS / name) for name in names]


def load_run(place: Path) -> Seen:
    """Return the run in a folder of its own."""
    recorded = place / ENGINE_FOLDER
    return Seen(Result.load(place), Result.load(recorded) if recorded.is_dir() else None)
