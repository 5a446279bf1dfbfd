"""A server's twin: observe some rates, calibrate, predict others, observe, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep, time
from typing import Any

import numpy as np

from busdoor.calibration import Calibration, calibrate, calibrate_from_requests
from busdoor.calibration.request_load import doubts_of
from busdoor.core.json import write_json
from busdoor.core.progress import Report
from busdoor.observe.api import observe
from busdoor.observe.folder import write_observation
from busdoor.observe.how import How
from busdoor.observe.step_log import SETTLE_S, recorded_run
from busdoor.observe.ttft_split import ttft_split
from busdoor.observe.twin.compare import ServerTwin, write_comparison
from busdoor.observe.twin.folder import (
    CALIBRATION,
    PREDICTIONS,
    RUNS,
    Seen,
    load_run,
)
from busdoor.observe.twin.prediction import ServerModel, prediction_rows
from busdoor_workloads import Trace


@dataclass(frozen=True)
class Plan:
    """What a twin measures, by name: runs to fit the step time to, and runs predicted first.

    `how` they are sent; `step_log` is the recorder's file, without which the fit is to requests
    alone; `policy` says how the server schedules where it does not; `static` is the batch size of
    each predicted run that is sent in static batches; `force` goes on with a doubtful fit to
    requests.
    """

    url: str
    calibrated: Mapping[str, Trace]
    predicted: Mapping[str, Trace]
    how: How
    step_log: Path | None = None
    policy: Mapping[str, Any] | None = None
    static: Mapping[str, int] = field(default_factory=dict)
    force: bool = False


def make_twin(plan: Plan, folder: Path, report: Report | None = None) -> ServerTwin:
    """Observe, calibrate, predict, observe again, compare; what is done already stays.

    The folder gets the runs, calibration.toml, a file per prediction with the time at which it was
    written, predictions.csv, and parts.json with the parts of TTFT and errors. `report` is called
    with the share that is done and what is being done. ServerError if the server does not answer;
    ValueError if the runs identify no step time, or a fit to requests is doubtful.
    """
    report = report or (lambda share, text: None)
    total = len(plan.calibrated) + len(plan.predicted)
    seen = {}
    for number, (name, trace) in enumerate(plan.calibrated.items()):
        report(number / total, f"measuring {name}, to calibrate")
        seen[name] = _measured(plan, name, trace, folder)
    calibration = _calibrated(list(seen.values()), list(seen), plan.policy, folder.resolve().name)
    clients = [run.client for run in seen.values() if run.engine is None]
    if (doubts := doubts_of(calibration.about, clients)) and not plan.force:
        raise ValueError(
            f"nothing is predicted, because {'; '.join(doubts)}; --force goes on all the same"
        )
    calibration.save(folder / CALIBRATION)
    model = model_of(calibration, list(seen.values()), plan.policy)

    def rest(share: float, text: str) -> None:
        report((len(plan.calibrated) + share * len(plan.predicted)) / total, text)

    later = predict_and_measure(plan, model, folder, rest)
    return write_comparison(calibration, model, seen, later, folder)


def predict_and_measure(
    plan: Plan, model: ServerModel, folder: Path, report: Report
) -> dict[str, Seen]:
    """Write the predictions of a plan, then measure its predicted runs."""
    for name, trace in plan.predicted.items():
        _predict_once(model, trace, name, folder, plan.static.get(name))
    seen = {}
    for number, (name, trace) in enumerate(plan.predicted.items()):
        report(number / len(plan.predicted), f"measuring {name}, which is predicted")
        seen[name] = _measured(plan, name, trace, folder)
    return seen


def _measured(plan: Plan, name: str, trace: Trace, folder: Path) -> Seen:
    """Observe a run, unless the folder has it."""
    place = folder / RUNS / name
    if not (place / "meta.json").exists():
        how = replace(plan.how, static=plan.static.get(name))
        found = observe(plan.url, trace, how)
        if not found.result.meta["complete"]:
            raise KeyboardInterrupt
        sleep(SETTLE_S)
        steps = plan.step_log
        engine = None if steps is None else recorded_run(steps, found.result.meta, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{name}.part")
        write_observation(found, part, engine)
        part.rename(place)
    return load_run(place)


def _calibrated(
    runs: Sequence[Seen], names: Sequence[str], policy: Mapping[str, Any] | None, name: str
) -> Calibration:
    """Fit the step time to iterations where the engine recorded them, else to requests."""
    engines = [run.engine for run in runs if run.engine is not None]
    if len(engines) == len(runs):
        return calibrate(engines, names, name=name, policy=policy)
    return calibrate_from_requests([run.client for run in runs], names, name=name, policy=policy)


def model_of(
    calibration: Calibration, runs: Sequence[Seen], policy: Mapping[str, Any] | None
) -> ServerModel:
    """Return what predicts other loads: step time, server, and front end as it was seen."""
    engines = [run.engine for run in runs if run.engine is not None]
    meta = (engines or [run.client for run in runs])[0].meta
    splits = [ttft_split(run.client, run.engine) for run in runs if run.engine is not None]
    front_end_s = float(np.mean([own["front end"] for own in splits])) if splits else 0.0
    return ServerModel(calibration.step_time, meta, front_end_s, policy)


def _predict_once(
    model: ServerModel, trace: Trace, name: str, folder: Path, static: int | None
) -> None:
    """Write a prediction with the time of writing; one that is there precedes its run."""
    file = folder / PREDICTIONS / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = prediction_rows(model, trace, name, static).to_dict("records")
        write_json(file, {"written_at": time(), "rows": rows})
