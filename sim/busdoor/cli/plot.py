"""`busdoor plot`: draw a saved result again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busdoor.result import Result


def plot(directory: Path, /, *, out: Path | None = None) -> int:
    """Draw a saved comparison or result again, as PNG and SVG.

    Parameters
    ----------
    directory
        A folder that compare or simulate wrote.
    out
        Folder for the pictures; by default the folder's own plots.
    """
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison import Comparison
    from busdoor.comparison_files import save_plots
    from busdoor.result import Result

    if not directory.is_dir():
        raise ValueError(f"{directory} is not a folder; name one that busdoor compare or simulate wrote")
    target = out or directory / "plots"
    with progress_bar() as report:
        if (directory / "comparison.json").exists():
            files = save_plots(Comparison.load(directory), target, report)
        elif (directory / "meta.json").exists():
            files = save_result_plots(Result.load(directory), target)
        else:
            raise ValueError(f"{directory} holds neither a comparison (comparison.json) nor a result (meta.json)")
    for file in files:
        print(file)
    return 0


def save_result_plots(result: Result, folder: Path) -> list[Path]:
    """Draw one result into a folder, as PNG and SVG.

    Parameters
    ----------
    result : Result
        What to draw.
    folder : Path
        Where to; made if need be.
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
