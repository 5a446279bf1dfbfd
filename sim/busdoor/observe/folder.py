"""An observation on disk: a result's folder, with chunk times and the server's numbers."""

from __future__ import annotations

from pathlib import Path

from busdoor.calibration.import_logs import ENGINE_FOLDER
from busdoor.core.saved import write_csv
from busdoor.observe.observation import Observation
from busdoor.results.result import Result, write_result


def write_observation(seen: Observation, folder: Path, engine: Result | None = None) -> Path:
    """Write an observation into a folder, and what the engine recorded into one inside it."""
    write_result(seen.result, folder)
    write_csv(seen.chunks, folder / "chunks.csv", index=False)
    if len(seen.states):
        write_csv(seen.states, folder / "server.csv", index=False)
    if engine is not None:
        write_result(engine, folder / ENGINE_FOLDER)
    return folder


def run_folder(rate: float | None, several: bool) -> str:
    """Return the name of a rate's folder; empty where there is one run alone.

    >>> run_folder(2.0, several=True), run_folder(0.5, several=True), run_folder(2.0, several=False)
    ('rate-2', 'rate-0.5', '')
    """
    return f"rate-{rate:g}" if several else ""
