"""A server's twin: observe some rates, calibrate, predict others, observe, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep, time
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration import Calibration, calibrate, calibrate_from_requests
from busdoor.calibration.import_logs import ENGINE_FOLDER
from busdoor.core.json import read_object, write_json
from busdoor.core.saved import write_csv
from busdoor.observe.api import observe
from busdoor.observe.folder import write_observation
from busdoor.observe.how import How
from busdoor.observe.prediction import ServerModel, prediction_rows, with_measured
from busdoor.observe.step_log import SETTLE_S, recorded_run
from busdoor.observe.ttft_split import ttft_split
from busdoor.results.result import Result
from busdoor_workloads import Trace

Report = Callable[[float, str], None]
RUNS, PREDICTIONS, CALIBRATION = "runs", "predictions", "calibration.toml"


@dataclass(frozen=True)
class Plan:
    """What a twin measures.

    Parameters
    ----------
    url : str
        The server.
    calibrated, predicted : mapping of str to Trace
        Runs by name: those that the step time is fitted to, and those that are predicted first.
    how : How
        How they are sent.
    step_log : Path, optional
        The recorder's file, if the server has it; without it the fit is to requests alone.
    policy : mapping, optional
        How the server schedules, where it does not say.
    """

    url: str
    calibrated: Mapping[str, Trace]
    predicted: Mapping[str, Trace]
    how: How
    step_log: Path | None = None
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ServerTwin:
    """A calibrated server, and how far its predictions were off.

    Parameters
    ----------
    calibration : Calibration
        The step time.
    front_end_s : float
        Seconds of a request outside the engine.
    table : DataFrame
        A row per predicted run and quantity: predicted, measured, error, error_ms, n, half_width.
    splits : mapping
        Of each run with a step log, the mean TTFT by part, in seconds.
    """

    calibration: Calibration
    front_end_s: float
    table: pd.DataFrame
    splits: Mapping[str, Mapping[str, float]]


def make_twin(plan: Plan, folder: Path, report: Report | None = None) -> ServerTwin:
    """Observe, calibrate, predict, observe again, compare; what is done already stays.

    Parameters
    ----------
    plan : Plan
        What is measured.
    folder : Path
        Gets the runs, calibration.toml, a file per prediction with the time at which it was
        written, and predictions.csv.
    report : callable, optional
        Called with the share that is done and what is being done.

    Raises
    ------
    ServerError
        If the server does not answer.
    ValueError
        If the runs identify no step time.
    """
    report = report or (lambda share, text: None)
    total = len(plan.calibrated) + len(plan.predicted)
    seen = {}
    for number, (name, trace) in enumerate(plan.calibrated.items()):
        report(number / total, f"measuring {name}, to calibrate")
        seen[name] = _measured(plan, name, trace, folder)
    calibration = _calibrated(list(seen.values()), list(seen), plan.policy, folder.resolve().name)
    calibration.save(folder / CALIBRATION)
    model = _model(calibration, list(seen.values()), plan.policy)
    for name, trace in plan.predicted.items():
        _predict_once(model, trace, name, folder)
    for number, (name, trace) in enumerate(plan.predicted.items()):
        report((len(plan.calibrated) + number) / total, f"measuring {name}, which is predicted")
        seen[name] = _measured(plan, name, trace, folder)
    table = _compared(list(plan.predicted), seen, folder)
    write_csv(table, folder / "predictions.csv", index=False)
    splits = {name: ttft_split(own.client, own.engine) for name, own in seen.items() if own.engine}
    return ServerTwin(calibration, model.front_end_s, table, splits)


@dataclass(frozen=True)
class Seen:
    """One run: what the client saw, and what the engine recorded if it did."""

    client: Result
    engine: Result | None


def _measured(plan: Plan, name: str, trace: Trace, folder: Path) -> Seen:
    """Observe a run, unless the folder has it."""
    place = folder / RUNS / name
    if not (place / "meta.json").exists():
        found = observe(plan.url, trace, plan.how)
        if not found.result.meta["complete"]:
            raise KeyboardInterrupt
        sleep(SETTLE_S)
        steps = plan.step_log
        engine = None if steps is None else recorded_run(steps, found.result.meta, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{name}.part")
        write_observation(found, part, engine)
        part.rename(place)
    recorded = place / ENGINE_FOLDER
    return Seen(Result.load(place), Result.load(recorded) if recorded.is_dir() else None)


def _calibrated(
    runs: Sequence[Seen], names: Sequence[str], policy: Mapping[str, Any] | None, name: str
) -> Calibration:
    """Fit the step time to iterations where the engine recorded them, else to requests."""
    engines = [run.engine for run in runs if run.engine is not None]
    if len(engines) == len(runs):
        return calibrate(engines, names, name=name, policy=policy)
    return calibrate_from_requests([run.client for run in runs], names, name=name, policy=policy)


def _model(
    calibration: Calibration, runs: Sequence[Seen], policy: Mapping[str, Any] | None
) -> ServerModel:
    """Return what predicts other loads: step time, server, and front end as it was seen."""
    engines = [run.engine for run in runs if run.engine is not None]
    meta = (engines or [run.client for run in runs])[0].meta
    splits = [ttft_split(run.client, run.engine) for run in runs if run.engine is not None]
    front_end_s = float(np.mean([own["front end"] for own in splits])) if splits else 0.0
    return ServerModel(calibration.step_time, meta, front_end_s, policy)


def _predict_once(model: ServerModel, trace: Trace, name: str, folder: Path) -> None:
    """Write a prediction with the time of writing; one that is there precedes its run."""
    file = folder / PREDICTIONS / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = prediction_rows(model, trace, name).to_dict("records")
        write_json(file, {"written_at": time(), "rows": rows})


def _compared(names: Sequence[str], seen: Mapping[str, Seen], folder: Path) -> pd.DataFrame:
    """Put every measured run beside its prediction."""
    tables = []
    for name in names:
        document = read_object(folder / PREDICTIONS / f"{name}.json")
        started_s = float(seen[name].client.meta["started_at"])
        if not document["written_at"] < started_s:
            raise ValueError(f"{PREDICTIONS}/{name}.json was written after {name} was measured")
        tables.append(with_measured(pd.DataFrame(document["rows"]), seen[name].client))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
