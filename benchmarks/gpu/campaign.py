"""Measure a profile, calibrate, and replay every held-out case of a twin."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.gpu.campaign_cases import plans

from busdoor.calibration import calibrate
from busdoor.results.result import Result
from busdoor.validation.twin_folder import CALIBRATION, PROFILE, RUNS
from busdoor_gpu.cli.flags import GridFlags
from busdoor_gpu.cli.machine import settle_machine
from busdoor_gpu.engine.place import settle_place
from busdoor_gpu.replay.replay import replay
from busdoor_gpu.twin.held_out_runs import Machine
from busdoor_gpu.twin.profile import profile

_DRAIN_S = 6.0  # of making an engine, and of serving the requests present at the last arrival
_REHEARSAL_SHRINK = 16  # divides lengths on a CPU, where a request may have 512 tokens


def run(
    machine: Machine,
    folder: Path,
    profile_s: float,
    each_s: float,
    deadline_s: float,
    shrink: int = 1,
    only: Collection[str] = (),
) -> None:
    """Profile, calibrate, replay the cases until the time is up; each is written at once.

    Parameters
    ----------
    machine : Machine
        Machine of the runs.
    folder : Path
        Gets `profile`, `calibration.toml` and `runs`, as in a twin's folder.
    profile_s, each_s, deadline_s : float
        Seconds for the profile, for each case (about), and after which no case starts.
    shrink : int
        Divides all lengths.
    only : collection of str
        Names of the cases to replay; by default all.
    """
    end_s = time.monotonic() + deadline_s
    options = machine.options
    profile(machine.model, machine.backend, machine.limits, profile_s, **options).save(
        folder / PROFILE
    )
    calibration = calibrate([Result.load(folder / PROFILE)], [PROFILE], name=folder.resolve().name)
    calibration.save(folder / CALIBRATION)
    for made in plans(machine.limits, calibration.step_time, each_s, shrink=shrink, only=only):
        last_s = float(made.trace.arrival_s[-1])
        if time.monotonic() + max(last_s, each_s) + _DRAIN_S > end_s:
            print(f"{made.name}: no time left", flush=True)
            continue
        meta = {"policy_config": made.fields, "seed": 0}
        if "num_present" in made.trace.metadata:
            meta["num_present"] = made.trace.metadata["num_present"]
        result = replay(
            made.trace, made.policy(), machine.model, machine.backend, meta=meta, **options
        )
        result.save(folder / RUNS / made.name)
        print(
            f"{made.name}: {len(made.trace)} requests in {result.summary['duration']:.1f} s",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign from the command line: on a GPU, or as a rehearsal on a CPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.campaign", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the twin")
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument(
        "--profile", type=float, default=95.0, metavar="S", help="seconds of profile"
    )
    parser.add_argument(
        "--each", type=float, default=11.0, metavar="S", help="seconds of each trace, about"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=375.0,
        metavar="S",
        help="seconds after which no case starts",
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", metavar="CASE", help="replay this case only")
    options = parser.parse_args(arguments)
    place = settle_place(options.model, None, options.device, None)
    machine = Machine(*settle_machine(place, GridFlags(), 0), "wall" if place.on_gpu else "paced")
    shrink = 1 if place.on_gpu else _REHEARSAL_SHRINK
    run(
        machine,
        options.out,
        options.profile,
        options.each,
        options.deadline,
        shrink,
        options.only or (),
    )


if __name__ == "__main__":
    main()
