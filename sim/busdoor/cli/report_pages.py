"""Which page shows the study or result in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from busdoor.capacity.page import capacity_page
from busdoor.comparison.comparison import Comparison
from busdoor.comparison.curve_report import curve_page
from busdoor.comparison.curve_report import load as load_curve
from busdoor.comparison.gain_map_report import load as load_map
from busdoor.comparison.gain_map_report import map_page
from busdoor.comparison.page import comparison_page
from busdoor.core.names import listed
from busdoor.core.saved import readable
from busdoor.html.page import Page
from busdoor.observe.twin.page import twin_page
from busdoor.recommend.page import recommend_page
from busdoor.results.hourly import HourlyResult
from busdoor.results.hourly_page import hourly_page
from busdoor.results.page import result_page
from busdoor.results.result import Result
from busdoor.sweep.page import sweep_page
from busdoor.validation.page import validation_page
from busdoor.validation.validation import Validation


def page_of(folder: Path) -> Page:
    """Make the report of a folder that a command of busdoor wrote.

    Raises ValueError if there is no such folder, or nothing in it that a page can show.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name one that {listed(WRITERS, 'or')} wrote")
    for marker, (_, make) in KINDS.items():
        if (folder / marker).exists():
            with readable(folder):
                return make(folder)
    known = " nor ".join(f"a {kind} ({marker})" for marker, (kind, _) in KINDS.items())
    raise ValueError(f"{folder} holds neither {known}")


# By the file that identifies each kind of folder: its name, and the function that makes its page.
KINDS: dict[str, tuple[str, Callable[[Path], Page]]] = {
    "comparison.json": ("comparison", lambda folder: comparison_page(Comparison.load(folder))),
    "capacity.json": ("capacity study", capacity_page),
    "sweep.csv": ("sweep", sweep_page),
    "recommend.json": ("recommendation", recommend_page),
    "validation.json": ("validation", lambda folder: validation_page(Validation.load(folder))),
    "predictions.csv": ("twin of a server", twin_page),
    "hours.csv": ("long run", lambda folder: hourly_page(HourlyResult.load(folder))),
    "meta.json": ("result", lambda folder: result_page(Result.load(folder))),
    "curve.json": ("curve", lambda folder: curve_page(load_curve(folder))),
    "map.json": ("map", lambda folder: map_page(load_map(folder))),
}
WRITERS = (
    "busdoor compare",
    "busdoor simulate",
    "busdoor capacity",
    "busdoor sweep",
    "busdoor recommend",
    "busdoor validate",
    "busdoor twin --url",
)
