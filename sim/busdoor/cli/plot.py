"""`busdoor plot`: draw a saved result again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busdoor.results.result import Result


def plot(
    directory: Path,
    /,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    run: int | None = None,
) -> int:
    """Draw a saved comparison, capacity study, result or measured run, as PNG and SVG.

    Parameters
    ----------
    directory
        A folder that compare, capacity or simulate wrote, or a measured run: a file that calibrate
        takes, of which the latencies are drawn.
    out
        Folder for the pictures; by default the folder's own plots, drawn again. A file needs one.
    overwrite
        Draw into the folder of --out even if it is not empty; pictures of the same names are
        replaced.
    run
        Which run of a file that holds several; 1 is the first.
    """
    from busdoor.core.saved import readable
    from busdoor.core.study_folder import check_free

    if directory.is_file():
        return _measured(directory, out, overwrite, run)
    if run is not None:
        raise ValueError(f"--run applies only to a file of measured runs; {directory} is none")
    if not directory.is_dir():
        raise ValueError(
            f"{directory} is not a folder; name one that busdoor compare, capacity or simulate "
            f"wrote"
        )
    draw = next(
        (draw for marker, (_, draw) in _KINDS.items() if (directory / marker).exists()), None
    )
    if draw is None:
        known = " nor ".join(f"a {kind} ({marker})" for marker, (kind, _) in _KINDS.items())
        raise ValueError(f"{directory} holds neither {known}")
    if out is not None:
        check_free(out, mixed=overwrite)
    with readable(directory):
        files = draw(directory, out or directory / "plots")
    if not files:
        raise ValueError(
            f"{directory} has no rate that was tried, so that there is nothing to draw"
        )
    for file in files:
        print(file)
    return 0


def _measured(file: Path, out: Path | None, overwrite: bool, run: int | None) -> int:
    from busdoor.cli.measured_flags import MeasuredFlags
    from busdoor.core.study_folder import check_free

    if out is None:
        raise ValueError(f"{file} is a file: name a folder for the pictures with --out")
    check_free(out, mixed=overwrite)
    [result] = MeasuredFlags(run=run).read([file])
    for drawn in save_result_plots(result, out):
        print(drawn)
    return 0


def _comparison(directory: Path, target: Path) -> list[Path]:
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison.comparison import Comparison
    from busdoor.comparison.folder import save_plots

    with progress_bar() as report:
        return save_plots(Comparison.load(directory), target, report)


def _curve(directory: Path, target: Path) -> list[Path]:
    from busdoor.comparison.curve_report import load, plot_curve
    from busdoor.plots import save_figure

    return save_figure(plot_curve(load(directory)), target / "curve")


def _map(directory: Path, target: Path) -> list[Path]:
    from busdoor.comparison.gain_map_figure import plot_map
    from busdoor.comparison.gain_map_report import load
    from busdoor.plots import save_figure

    return save_figure(plot_map(load(directory)), target / "map")


def _capacity(directory: Path, target: Path) -> list[Path]:
    from busdoor.capacity.folder import load, save_plots

    return save_plots(load(directory), target)


def _result(directory: Path, target: Path) -> list[Path]:
    from busdoor.results.result import Result

    return save_result_plots(Result.load(directory), target)


def _hours(directory: Path, target: Path) -> list[Path]:
    from busdoor.plots import save_figure
    from busdoor.results.hourly import HourlyResult

    return save_figure(HourlyResult.load(directory).plot_hours(), target / "hours")


# By the file that identifies each kind of folder: its name, and the function that draws it.
_KINDS = {
    "comparison.json": ("comparison", _comparison),
    "capacity.json": ("capacity study", _capacity),
    "hours.csv": ("long run", _hours),
    "meta.json": ("result", _result),
    "curve.json": ("curve", _curve),
    "map.json": ("map", _map),
}


def save_result_plots(result: Result, folder: Path) -> list[Path]:
    """Draw one result into a folder, as PNG and SVG; of requests alone only their latencies."""
    from matplotlib.figure import Figure

    from busdoor.plots import save_figure

    axes = {"latency": result.plot_latency_cdf()}
    if len(result.iterations) or result.meta.get("policy") != "measured":
        axes |= {
            "timeline": result.plot_timeline(),
            "batch": result.plot_occupancy(),
            "kv": result.plot_kv(),
            "waste": result.plot_waste(),
        }
    files: list[Path] = []
    for name, ax in axes.items():
        figure = ax.get_figure(root=True)
        assert isinstance(figure, Figure)
        files += save_figure(figure, folder / name)
    return files
