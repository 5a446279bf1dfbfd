"""`busdoor sweep`: the what-if table of a study."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.cli.flags import Json
from busdoor.cli.output import print_notes
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.sweep import Point, Sweep


def sweep(
    study: Path,
    /,
    *,
    jobs: int = -1,
    cluster: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    json: Json = False,
) -> int:
    """Run every combination of a study's values, and write the what-if table.

    The study is a configuration file with a table [sweep] of lists by dotted keys: "gpu.name" =
    ["h100", "h200"], "workload.request_rate" = [4, 8, 12]. Every combination is a point for each
    policy; combine = "zip" pairs the first values, then the second. Finished points stay in the
    folder: the same command continues after an interruption.

    Parameters
    ----------
    study
        TOML file.
    jobs
        Number of processes: 1 runs in this one, -1 starts one per core. With a running cluster: the
        workers to expect.
    cluster
        Run on Dask: the scheduler's address (tcp://host:8786), or local.
    out
        Folder for the table and the points; by default busdoor-sweep- and the study's name.
    overwrite
        Replace everything that another study left in that folder, or run all points of this one
        again.
    """
    from busdoor.cli.output import output
    from busdoor.cli.render import print_sweep
    from busdoor.sweep import load_plan
    from busdoor.sweep.store import claim

    points = load_plan(study)
    _print_file_notes(points)
    folder = out or Path(f"busdoor-sweep-{study.stem}")
    claim(folder, [point.key for point in points], overwrite)
    with output(json) as answer:
        sweep, whole = _run(points, folder, jobs, cluster)
        sweep.save(folder)
        print_sweep(sweep)
        print(f"Table and points: {folder}")
        answer(lambda: _numbers(sweep))
    if whole and len(sweep.failed) == len(points):
        raise ValueError(f"every point failed; the first: {sweep.records[points[0].key].error}")
    return 0 if whole else exit_code()


def _print_file_notes(points: list[Point]) -> None:
    """Print once per trace file what its reader changed or left out."""
    from busdoor.config.workload import WorkloadTable

    files: dict[str, Mapping[str, Any]] = {}
    for point in points:
        workload = point.table.get("workload", {}) if not point.error else {}
        files |= {workload["path"]: workload} if workload.get("path") else {}
    for workload in files.values():
        # a file that cannot be read is each of its points' own error
        with suppress(ValueError, OSError):
            print_notes(WorkloadTable.from_table(workload).notes)


def _run(points: list[Point], folder: Path, jobs: int, cluster: str | None) -> tuple[Sweep, bool]:
    """Run under a progress bar; return the sweep, and whether it is complete."""
    from busdoor.cli.progress import progress_bar
    from busdoor.sweep import Sweep, run_sweep

    with progress_bar() as report:
        try:
            return run_sweep(points, folder, jobs=jobs, cluster=cluster, report=report), True
        except KeyboardInterrupt:
            return Sweep.load(points, folder), False


def _numbers(sweep: Sweep) -> dict[str, Any]:
    return {
        "points": len(sweep.points),
        "failed": len(sweep.failed),
        "table": sweep.table.to_dict("records"),
    }
