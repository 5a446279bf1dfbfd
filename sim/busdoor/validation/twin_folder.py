"""Folders that `busdoor twin` wrote: a machine's measurements, calibration, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from busdoor.calibration.calibration import Calibration
from busdoor.results.result import Result
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation

PROFILE, CALIBRATION, RUNS, ERRORS = "profile", "calibration.toml", "runs", "errors.json"


@dataclass(frozen=True)
class Twin:
    """A machine's twin, as its folder keeps it: `busdoor twin --out` wrote it."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.name

    @cached_property
    def profile(self) -> Result:
        """Iterations that the calibration was fitted to."""
        return Result.load(self.folder / PROFILE)

    @cached_property
    def calibration(self) -> Calibration:
        """What was fitted."""
        return Calibration.load(self.folder / CALIBRATION)

    @cached_property
    def runs(self) -> Mapping[str, Result]:
        """Replays of traces that the fit had not seen, by name, in order of measurement."""
        return {name: Result.load(self.folder / RUNS / name) for name in self.recorded["runs"]}

    @property
    def recorded(self) -> Mapping[str, Any]:
        """Errors when it was made, as `recorded_errors` writes them."""
        recorded: Mapping[str, Any] = json.loads((self.folder / ERRORS).read_text(encoding="utf-8"))
        return recorded

    def validate(self) -> Validation:
        """Replay the runs in the simulator as it is now, with the calibration as it was then."""
        calibration = self.calibration
        return validate(
            list(self.runs.values()),
            calibration.step_time,
            list(self.runs),
            about=calibration.about,
        )


def find_twins(folder: Path) -> list[Twin]:
    """Find the twins below a folder, such as `gpu/results`; in the order of their paths.

    >>> find_twins(Path("no such folder"))
    []
    """
    return [Twin(path.parent) for path in sorted(folder.rglob(ERRORS))]
