"""`busdoor profile`: a designed grid of iterations on real hardware."""

from __future__ import annotations

from pathlib import Path

from busdoor.cli.flags import Overwrite
from busdoor_gpu.cli.flags import GridFlags, MachineFlags


def profile(
    *,
    machine: MachineFlags = MachineFlags(),
    out: Path | None = None,
    overwrite: Overwrite = False,
    budget: str = "180s",
    grid: GridFlags = GridFlags(),
    seed: int = 0,
) -> int:
    """Measure iterations of many shapes on this machine, for `busdoor calibrate`.

    Decodes over batch and context (equal and skewed), prefill over chunk and prior context, and
    both together. The folder has iterations (with device_s, host_s and cell) and meta.json, in the
    simulator's format.

    Parameters
    ----------
    out
        Folder for the result; by default a new busdoor-profile-001.
    budget
        Time to measure, such as 60s or 3min; at most a tenth of it is warm-up.
    seed
        Seed of the weights and of the order.
    """
    from busdoor.cli.progress import progress_bar
    from busdoor.core.study_folder import study_folder
    from busdoor.core.units import parse_seconds
    from busdoor.results.result import write_result
    from busdoor_gpu.cli.folder import broken_off
    from busdoor_gpu.cli.machine import place_of, settle_machine
    from busdoor_gpu.engine.slots import EngineError
    from busdoor_gpu.replay.replay import ReplayError
    from busdoor_gpu.twin import profile as profiling

    budget_s = parse_seconds(budget)
    place = place_of(machine)
    with study_folder(out, "profile", overwrite) as study:
        try:
            loaded, kernels, limits = settle_machine(place, grid, seed)
            with progress_bar(f"measuring for {budget_s:g} s"):
                result = profiling.profile(
                    loaded,
                    kernels,
                    limits,
                    budget_s,
                    lookahead=machine.batches_ahead,
                    clock=machine.clock or "wall",
                    cuda_graphs=not machine.eager,
                    seed=seed,
                    meta={"seed": seed},
                )
        except ReplayError as error:
            write_result(error.result, study.part)
            return broken_off(error, f"what was measured so far is in {study.publish()}")
        except EngineError as error:
            raise ValueError(str(error)) from error
        write_result(result, study.part)
        folder = study.publish()
    measured = result.iterations["cell"]
    print(
        f"{len(measured):,} iterations of {measured.nunique()} of {result.meta['num_cells']} "
        f"designed shapes"
    )
    print(f"Result: {folder}")
    return 0
