"""`busdoor plot`: draw a saved result again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busdoor.results.result import Result


def plot(directory: Path, /, *, out: Path | None = None, overwrite: bool = False) -> int:
    """Draw a saved comparison, capacity study or result again, as PNG and SVG.

    Parameters
    ----------
    directory
        A folder that compare, capacity or simulate wrote.
    out
        Folder for the pictures; by default the folder's own plots, drawn again.
    overwrite
        Draw into the folder of --out even if it is not empty; pictures of the same names are
        replaced.
    """
    from busdoor.core.saved import readable
    from busdoor.core.study_folder import check_free

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


def _comparison(directory: Path, target: Path) -> list[Path]:
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison.comparison import Comparison
    from busdoor.comparison.folder import save_plots

    with progress_bar() as report:
        return save_plots(Comparison.load(directory), target, report)


def _capacity(directory: Path, target: Path) -> list[Path]:
    from busdoor.capacity.folder import load, save_plots

    return save_plots(load(directory), target)


def _result(directory: Path, target: Path) -> list[Path]:
    from busdoor.results.result import Result

    return save_result_plots(Result.load(directory), target)


# By the file that identifies each kind of folder: its name, and the function that draws it.
_KINDS = {
    "comparison.json": ("comparison", _comparison),
    "capacity.json": ("capacity study", _capacity),
    "meta.json": ("result", _result),
}


def save_result_plots(result: Result, folder: Path) -> list[Path]:
    """Draw one result into a folder, as PNG and SVG.

    Parameters
    ----------
    result : Result
        What to draw.
    folder : Path
        The folder; created if it does not exist.
    """
    from matplotlib.figure import Figure

    from busdoor.plots import save_figure

    axes = {
        "timeline": result.plot_timeline(),
        "latency": result.plot_latency_cdf(),
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
