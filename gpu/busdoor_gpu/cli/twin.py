"""`busdoor twin`: profile, calibrate, replay, validate and report in one command."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from busdoor.calibration import Calibration
    from busdoor.validation.validation import Validation
    from busdoor_gpu.replay.replay import ReplayError

Flag = Parameter(negative="")
_BROKEN_OFF = "broken_off"
_PAGE = "report.html"
_FEW = 50  # requests: with fewer, a 99th percentile is the largest value, and static batches are only two or three


def twin(
    *,
    backend: Literal["triton", "torch"] | None = None,
    model: str | None = None,
    out: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    budget: str = "100s",
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    max_model_len: int | None = None,
    num_blocks: int | None = None,
    clock: Literal["wall", "cpu", "paced"] | None = None,
    device: str | None = None,
    dtype: Literal["bfloat16", "float16", "float32"] | None = None,
    seed: int = 0,
    lookahead: Literal[0, 1] = 1,
    eager: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Calibrate the simulator to this machine, and report its errors.

    Measures a grid of iterations, fits the step time to it, replays held-out traces (a burst, and open arrivals at
    several loads, under continuous batching and, if it can keep up, static batching), and compares the simulator with
    these runs. The folder gets the profile, calibration.toml for --step-time, the runs, their validation and
    report.html. After an interruption the same command with its folder as --out continues where it stopped.

    Parameters
    ----------
    backend
        triton: our kernels, on a GPU; torch: plain PyTorch, anywhere; by default triton, or torch without a GPU.
    model
        Model of the catalogue, tiny-llama, tiny-qwen3, or the folder of a Llama or Qwen3 checkpoint; by default
        llama-3.1-8b on a GPU and tiny-llama on a CPU.
    out
        Folder for the result; by default a fresh busdoor-twin-001.
    overwrite
        Measure everything again: the content of the folder of --out is replaced.
    budget
        Time to measure, such as 100s or 10min; loading and figures come on top.
    max_num_seqs
        Largest batch; by default 256 on a GPU, 16 on a CPU.
    max_num_batched_tokens
        Most tokens of an iteration; by default 8192 on a GPU, 256 on a CPU.
    max_model_len
        Longest request; by default 8192 on a GPU, 512 on a CPU.
    num_blocks
        KV blocks of 16 tokens; by default as many as the GPU has room for, on a CPU as many as the batch can fill.
    clock
        wall (default on a GPU): real seconds; cpu: this process's processor time; paced (default on a CPU): processor
        time scaled by a reference computation beside every iteration, for shared cores.
    device
        cuda, cuda:1 or cpu; by default a GPU, or the CPU without one or with --backend torch.
    dtype
        Of weights and KV cache; by default bfloat16 on a GPU and float32 on a CPU.
    seed
        Seed of weights, grid, lengths and arrivals.
    lookahead
        0: the next batch is scheduled when the previous one has ended; by default while it still runs.
    eager
        Run without CUDA graphs.
    json
        Print the numbers of the validation as one line of JSON; tables and remarks then go to stderr.
    """
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.telling import telling
    from busdoor.core.study_paths import locked, resumed_folder
    from busdoor.core.units import parse_seconds
    from busdoor_gpu.cli.profile import settle_machine
    from busdoor_gpu.engine.place import settle_place
    from busdoor_gpu.engine.slots import EngineError
    from busdoor_gpu.replay.replay import ReplayError
    from busdoor_gpu.twin.held_out_runs import Machine
    from busdoor_gpu.twin.twin import SETTINGS, claimed, finish, make_twin

    budget_s = parse_seconds(budget)
    asked = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }
    place = settle_place(model, backend, device, dtype)
    folder = resumed_folder(out, "twin", SETTINGS, overwrite)
    with locked(folder), telling(json) as answer:
        try:
            # Measured memory may differ by a block between calls; a twin continues with the blocks that it had.
            blocks = claimed(folder).get("num_blocks") if num_blocks is None else num_blocks
            loaded, kernels, limits = settle_machine(place, asked, blocks, seed)
            clock = clock or ("wall" if place.on_gpu else "paced")
            machine = Machine(loaded, kernels, limits, clock, lookahead, not eager)
            with progress_bar() as report:
                calibration, validation = make_twin(machine, folder, budget_s, seed, report)
        except ReplayError as error:
            return _broken_off(error, folder)
        except EngineError as error:
            raise ValueError(str(error)) from error
        rmtree(folder / _BROKEN_OFF, ignore_errors=True)  # of an earlier call; this one has measured it whole
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
        f"complete steps are in {folder}, what was measured of this one is in {kept}; the same command with "
        f"--out {folder} continues",
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
    save_figure(plot_residuals([profile], [PROFILE], calibration.step_time), folder / "calibration_residuals")
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
        print(f"A run has only {fewest} requests, too few for 99th percentiles and gains; give a larger --budget.")
    print(f"Calibration: {folder / CALIBRATION}   Report: {folder / _PAGE}")
