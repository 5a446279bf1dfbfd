"""`busdoor compare --curve` and `--map`: the gain over the load, and over lengths and batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

if TYPE_CHECKING:
    from busdoor.cli.output import Answer
    from busdoor.comparison.curve import CurveExperiment
    from busdoor.comparison.gain_map import MapExperiment
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder

POLICIES = ({"name": "static"}, {"name": "dynamic"}, {"name": "vllm"})  # of a curve
MAP_REPLICATIONS = 3  # of a map: each is 140 places


def run_curve(settled: Config, place: StudyFolder, answer: Answer) -> bool:
    """Run a curve, write and print it; return whether it is whole."""
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison import curve_report as text
    from busdoor.comparison.api import draws
    from busdoor.comparison.curve import CurveExperiment

    with progress_bar() as report:
        experiment = CurveExperiment(settled, draws(settled), report)
        _finish(experiment)
    curve = experiment.curve()
    folder = text.write(curve, place)
    tables = [
        (one.title, curve.policies, text.panel_rows(curve, one), "load")
        for one in text.panels(curve)
    ]
    _print(text.heading(curve), tables, text.verdict(curve), curve.complete, folder)
    answer(lambda: text.to_json(curve))
    return curve.complete


def run_map(settled: Config, measured: Sequence[Path], place: StudyFolder, answer: Answer) -> bool:
    """Run a map, write and print it; return whether it is whole."""
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison import gain_map_report as text
    from busdoor.comparison.api import draws
    from busdoor.comparison.gain_map import MapExperiment
    from busdoor.comparison.gain_map_measured import measured_pairs, measured_points

    with progress_bar("simulating the measured runs"):
        points = measured_points((path.resolve().name, measured_pairs(path)) for path in measured)
    with progress_bar() as report:
        experiment = MapExperiment(settled, draws(settled), report)
        _finish(experiment)
    found = experiment.map(points)
    folder = text.write(found, place)
    tables = [
        (text.head(load), text.spreads(found), text.panel_rows(found, load), "batch size")
        for load in found.loads
    ]
    if len(points):
        tables.append(
            ("measured pairs", list(text.MEASURED_HEADS), text.measured_rows(found), "pair")
        )
    _print(text.heading(found), tables, text.verdict(found), found.complete, folder)
    answer(lambda: text.to_json(found))
    return found.complete


def _finish(experiment: CurveExperiment | MapExperiment) -> None:
    with suppress(KeyboardInterrupt):
        experiment.run()


def _print(
    heading: str,
    tables: Sequence[tuple[str, Sequence[str], Any, str]],
    verdict: str,
    complete: bool,
    folder: Path,
) -> None:
    from busdoor.cli.render import grid, wide_console

    console = wide_console()
    console.print(escape(heading), highlight=False)
    for title, columns, rows, first in tables:
        console.print(f"\n{escape(title[0].upper() + title[1:])}:", highlight=False)
        folded = [(name, [cell.replace(" (", "\n(") for cell in cells]) for name, cells in rows]
        console.print(grid(columns, folded, first=first))
    console.print()
    console.print(escape(verdict), highlight=False)
    if not complete:
        print("Interrupted: the replications that were whole are shown.")
    print(f"Tables and figures: {folder}; as a page: busdoor report {folder}")
