"""A twin of this machine: calibrated on a profile, and held against replays of traces that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from busdoor.calibration import Calibration, calibrate
from busdoor.core.json import read_object, write_json
from busdoor.results.result import Result
from busdoor.validation.regression import recorded_errors
from busdoor.validation.twin_folder import CALIBRATION, ERRORS, PROFILE, RUNS
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation
from busdoor_gpu.replay.replay import replay
from busdoor_gpu.twin.held_out_runs import PROFILE_SHARE, Machine, Run, unseen_runs
from busdoor_gpu.twin.profile import profile

Report = Callable[[float, str], None]

SETTINGS = "twin.json"  # in the folder: what its steps are of


def measure_profile(machine: Machine, budget_s: float, seed: int = 0) -> Result:
    """Run the designed grid for its share of the time."""
    return profile(
        machine.model, machine.backend, machine.limits, PROFILE_SHARE * budget_s, seed=seed, **machine.options
    )


def measure(machine: Machine, run: Run, meta: Mapping[str, Any] | None = None) -> Result:
    """Replay a run on the machine."""
    told = {"policy_config": machine.policy_fields(run.policy), **(meta or {})}
    policy = machine.policy(run.policy, run.trace)
    return replay(run.trace, policy, machine.model, machine.backend, meta=told, **machine.options)


def make_twin(
    machine: Machine, folder: Path, budget_s: float, seed: int = 0, report: Report | None = None
) -> tuple[Calibration, Validation]:
    """Profile, calibrate, replay what was not seen, validate; each step is written at once, and not done twice.

    Parameters
    ----------
    machine : Machine
        What is to get a twin.
    folder : Path
        Gets `profile`, `calibration.toml`, a folder for each run under `runs`, and `errors.json`, which a test can hold
        a later simulator to (`busdoor.calibration.drifted`). What of it is there already, from a call with the same
        settings that was broken off, is taken as it is.
    budget_s : float
        Seconds of the machine's clock for profile and replays together.
    seed : int
        Of everything drawn.
    report : callable, optional
        Told the share that is done, from 0 to 1, and what is being done.

    Returns
    -------
    Calibration, Validation

    Raises
    ------
    ReplayError
        If the machine cannot go on or is interrupted; what was measured before is in the folder.
    ValueError
        If the folder has the steps of other settings.
    """
    tell = report or (lambda share, what: None)
    claim(folder, machine.settings | {"budget_s": budget_s, "seed": seed})
    tell(0.0, "profile")
    measured = _once(folder / PROFILE, lambda: measure_profile(machine, budget_s, seed))
    calibration = _calibrated(measured, folder.resolve().name)
    calibration.save(folder / CALIBRATION)
    runs = unseen_runs(machine, calibration.step_time, budget_s, seed)
    results = list(_replayed(machine, runs, folder / RUNS, seed, tell))
    tell(1.0, "simulating the runs")
    names = [run.name for run in runs]
    validation = validate(results, calibration.step_time, names, about=calibration.about)
    write_json(folder / ERRORS, recorded_errors(validation))
    return calibration, validation


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note in the folder what its steps are of; refuse a folder with those of other settings.

    Examples
    --------
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
                f"{folder.resolve().name} has the steps of a twin with {key} = {found.get(key)}, not {value}; use the "
                f"same settings, another --out, or --overwrite"
            )


def claimed(folder: Path) -> Mapping[str, Any]:
    """Return what the steps in a folder are of; empty if there are none."""
    file = folder / SETTINGS
    settings: Mapping[str, Any] = read_object(file) if file.exists() else {}
    return settings


def finish(folder: Path) -> None:
    """Note in the folder that nothing of the twin is missing."""
    write_json(folder / SETTINGS, {**claimed(folder), "complete": True})


def _calibrated(profile: Result, name: str) -> Calibration:
    try:
        return calibrate([profile], ["profile"], name=name)
    except ValueError as error:
        raise ValueError(
            "the profile is too small to fit a step time to; give a larger --max-num-seqs, --max-model-len, "
            f"--num-blocks or --budget ({str(error).split(';')[0]})"
        ) from error


def _once(folder: Path, measure: Callable[[], Result]) -> Result:
    """Return what was measured before, or measure it now and keep it, whole or not at all."""
    if not folder.exists():
        measure().save(folder)
    return Result.load(folder)


def _replayed(machine: Machine, runs: list[Run], folder: Path, seed: int, tell: Report) -> Iterator[Result]:
    for number, run in enumerate(runs):
        tell(PROFILE_SHARE + (1 - PROFILE_SHARE) * number / len(runs), run.name)
        yield _once(folder / run.name, lambda run=run: measure(machine, run, {"seed": seed}))  # type: ignore[misc]
