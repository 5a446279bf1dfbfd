"""A twin of this machine: calibrated on a profile, and compared with held-out replays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from busdoor.calibration import Calibration, calibrate
from busdoor.core.json import read_object, write_json
from busdoor.core.progress import Report
from busdoor.results.result import Result
from busdoor.validation.regression import recorded_errors
from busdoor.validation.twin_folder import CALIBRATION, ERRORS, PROFILE, RUNS
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation
from busdoor_gpu.replay.replay import replay
from busdoor_gpu.twin.held_out_runs import PROFILE_SHARE, Machine, Run, held_out_runs
from busdoor_gpu.twin.profile import profile

SETTINGS = "twin.json"  # in the folder: the settings of its steps


def measure_profile(machine: Machine, budget_s: float, seed: int = 0) -> Result:
    """Run the designed grid for its share of the time."""
    return profile(
        machine.model,
        machine.backend,
        machine.limits,
        PROFILE_SHARE * budget_s,
        seed=seed,
        **machine.options,
    )


def measure(machine: Machine, run: Run, meta: Mapping[str, Any] | None = None) -> Result:
    """Replay a run on the machine."""
    described = {"policy_config": machine.policy_fields(run.policy), **(meta or {})}
    policy = machine.policy(run.policy, run.trace)
    return replay(
        run.trace, policy, machine.model, machine.backend, meta=described, **machine.options
    )


def make_twin(
    machine: Machine, folder: Path, budget_s: float, seed: int = 0, report: Report | None = None
) -> tuple[Calibration, Validation]:
    """Profile, calibrate, replay held-out runs, validate; each is written at once, done once.

    `folder` gets `profile`, `calibration.toml`, a folder for each run under `runs`, and
    `errors.json`, with which a test can compare a later simulator
    (`busdoor.validation.regression.drifted`); steps that an interrupted call with the same settings
    left there are kept. `budget_s` are seconds of the machine's clock for profile and replays
    together. `report` is called with the share that is done, from 0 to 1, and the current step.
    Raises ReplayError if the machine cannot continue or is interrupted (what was measured before is
    in the folder), ValueError if the folder has the steps of other settings.
    """
    report = report or (lambda share, text: None)
    claim(folder, machine.settings | {"budget_s": budget_s, "seed": seed})
    report(0.0, "profile")
    measured = _once(folder / PROFILE, lambda: measure_profile(machine, budget_s, seed))
    calibration = _calibrated(measured, folder.resolve().name)
    calibration.save(folder / CALIBRATION)
    runs = held_out_runs(machine, calibration.step_time, budget_s, seed)
    results = list(_replayed(machine, runs, folder / RUNS, seed, report))
    report(1.0, "simulating the runs")
    names = [run.name for run in runs]
    validation = validate(results, calibration.step_time, names, about=calibration.about)
    write_json(folder / ERRORS, recorded_errors(validation))
    return calibration, validation


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a twin's settings into its folder; raise ValueError if its steps have others.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "twin"
    >>> claim(folder, {"model": "tiny-llama", "seed": 0})
    >>> claim(folder, {"model": "tiny-llama", "seed": 0})
    >>> claim(folder, {"model": "tiny-llama", "seed": 1})
    Traceback (most recent call last):
    ValueError: twin has the steps of a twin with seed = 0, not 1; use the same settings, another --out, or --overwrite
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(settings))
    if not (found := claimed(folder)):
        write_json(folder / SETTINGS, {**wanted, "complete": False})
        return
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{folder.resolve().name} has the steps of a twin with {key} = {found.get(key)}, "
                f"not {value}; use the same settings, another --out, or --overwrite"
            )


def claimed(folder: Path) -> Mapping[str, Any]:
    """Return the settings of the steps in a folder; empty if there are none."""
    file = folder / SETTINGS
    settings: Mapping[str, Any] = read_object(file) if file.exists() else {}
    return settings


def finish(folder: Path) -> None:
    """Mark the twin in a folder as complete."""
    write_json(folder / SETTINGS, {**claimed(folder), "complete": True})


def _calibrated(profile: Result, name: str) -> Calibration:
    try:
        return calibrate([profile], ["profile"], name=name)
    except ValueError as error:
        raise ValueError(
            "the profile is too small to fit a step time to; give a larger --max-num-seqs, "
            f"--max-model-len, --num-blocks or --budget ({str(error).split(';')[0]})"
        ) from error


def _once(folder: Path, measure: Callable[[], Result]) -> Result:
    """Return the result in a folder; without one, measure it and save it, whole or not at all."""
    if not folder.exists():
        measure().save(folder)
    return Result.load(folder)


def _replayed(
    machine: Machine, runs: list[Run], folder: Path, seed: int, report: Report
) -> Iterator[Result]:
    for number, run in enumerate(runs):
        report(PROFILE_SHARE + (1 - PROFILE_SHARE) * number / len(runs), run.name)
        yield _once(folder / run.name, lambda run=run: measure(machine, run, {"seed": seed}))  # type: ignore[misc]
