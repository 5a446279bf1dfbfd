"""`busdoor twin`: profile, calibrate, replay, validate and report in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from busdoor.cli.flags import Json
from busdoor.cli.real_servers.twin_url import UrlFlags, refuse_without_url, twin_of_url
from busdoor_gpu.cli.flags import GridFlags, MachineFlags

if TYPE_CHECKING:
    from busdoor.calibration import Calibration
    from busdoor.validation.validation import Validation
    from busdoor_gpu.replay.replay import ReplayError

_BROKEN_OFF = "broken_off"
_PAGE = "report.html"
# requests: with fewer, a 99th percentile is the largest value, and static batches are only two or
# three
_FEW = 50


def twin(
    *,
    machine: MachineFlags = MachineFlags(),
    out: Path | None = None,
    overwrite: bool = False,
    budget: str = "100s",
    grid: GridFlags = GridFlags(),
    seed: int = 0,
    server: UrlFlags = UrlFlags(),
    json: Json = False,
) -> int:
    """Calibrate the simulator to this machine, or to a server by its address, and report its errors.

    Measures a grid of iterations, fits the step time to it, replays held-out traces (a burst, and
    open arrivals at several loads, under continuous batching and, if it can keep up, static
    batching), and compares the simulator with these runs. The folder gets the profile,
    calibration.toml for --step-time, the runs, their validation and report.html. After an
    interruption the same command with its folder as --out continues where it stopped. With --url a
    server is measured instead: at some rates to calibrate, at others to check what was predicted
    before.

    Parameters
    ----------
    out
        Folder for the result; by default a new busdoor-twin-001.
    overwrite
        Measure everything again: the content of the folder of --out is replaced.
    budget
        Time to measure, such as 100s or 10min; loading and figures come on top.
    seed
        Seed of weights, grid, lengths and arrivals.
    """
    if server.url is not None:
        return twin_of_url(server, out, overwrite, seed, json)
    refuse_without_url(server)
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.core.study_paths import locked, resumed_folder
    from busdoor.core.units import parse_seconds
    from busdoor_gpu.cli.machine import place_of, settle_machine
    from busdoor_gpu.engine.slots import EngineError
    from busdoor_gpu.replay.replay import ReplayError
    from busdoor_gpu.twin.held_out_runs import Machine
    from busdoor_gpu.twin.twin import SETTINGS, claimed, finish, make_twin

    budget_s = parse_seconds(budget)
    place = place_of(machine)
    folder = resumed_folder(out, "twin", SETTINGS, overwrite)
    with locked(folder), output(json) as answer:
        try:
            # Measured memory may differ by a block between calls; a twin continues with the blocks
            # that it had.
            if grid.num_blocks is None:
                grid = replace(grid, num_blocks=claimed(folder).get("num_blocks"))
            loaded, kernels, limits = settle_machine(place, grid, seed)
            clock = machine.clock or ("wall" if place.on_gpu else "paced")
            made = Machine(loaded, kernels, limits, clock, machine.batches_ahead, not machine.eager)
            with progress_bar() as report:
                calibration, validation = make_twin(made, folder, budget_s, seed, report)
        except ReplayError as error:
            return _broken_off(error, folder)
        except EngineError as error:
            raise ValueError(str(error)) from error
        rmtree(folder / _BROKEN_OFF, ignore_errors=True)  # of an earlier call; now measured whole
        _deliver(folder, calibration, validation)
        finish(folder)
        _print(folder, calibration, validation)
        answer(validation.to_dict)
    return 0


def _broken_off(error: ReplayError, folder: Path) -> int:
    """Save what was measured, and report how to continue."""
    from busdoor_gpu.cli.folder import broken_off

    kept = error.result.save(folder / _BROKEN_OFF, overwrite=True)
    return broken_off(
        error,
        f"complete steps are in {folder}, what was measured of this one is in {kept}; the same "
        f"command with --out {folder} continues",
    )


def _deliver(folder: Path, calibration: Calibration, validation: Validation) -> None:
    """Write the figures and the page."""
    from busdoor.calibration.figures import plot_residuals
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.report_pages import page_of
    from busdoor.core.study_folder import study_folder
    from busdoor.plots import save_figure
    from busdoor.results.result import Result
    from busdoor.validation.folder import write
    from busdoor.validation.twin_folder import PROFILE

    profile = Result.load(folder / PROFILE)
    save_figure(
        plot_residuals([profile], [PROFILE], calibration.step_time),
        folder / "calibration_residuals",
    )
    with study_folder(folder / "validation", overwrite=True) as place, progress_bar() as report:
        write(validation, place, report)
    page_of(folder / "validation").write(folder / _PAGE)


def _print(folder: Path, calibration: Calibration, validation: Validation) -> None:
    """Print the fit and its errors, and whether the runs are too short for them."""
    from busdoor.cli.render import print_calibration, print_validation
    from busdoor.validation.twin_folder import CALIBRATION

    print_calibration(calibration)
    print_validation(validation)
    fewest = min(len(run.measured.requests) for run in validation.runs)
    if fewest < _FEW:
        print(
            f"A run has only {fewest} requests, too few for 99th percentiles and gains; give a "
            f"larger --budget."
        )
    print(f"Calibration: {folder / CALIBRATION}   Report: {folder / _PAGE}")
