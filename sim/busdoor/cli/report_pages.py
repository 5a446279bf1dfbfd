"""Which page shows the study or result in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from busdoor.core.names import listed
from busdoor.core.saved import readable
from busdoor.html.page import Page


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


def _comparison(folder: Path) -> Page:
    from busdoor.comparison.comparison import Comparison
    from busdoor.comparison.page import comparison_page

    return comparison_page(Comparison.load(folder))


def _result(folder: Path) -> Page:
    from busdoor.results.page import result_page
    from busdoor.results.result import Result

    return result_page(Result.load(folder))


def _capacity(folder: Path) -> Page:
    from busdoor.capacity.page import capacity_page

    return capacity_page(folder)


def _sweep(folder: Path) -> Page:
    from busdoor.sweep.page import sweep_page

    return sweep_page(folder)


def _validation(folder: Path) -> Page:
    from busdoor.validation.page import validation_page
    from busdoor.validation.validation import Validation

    return validation_page(Validation.load(folder))


def _twin(folder: Path) -> Page:
    from busdoor.observe.twin.page import twin_page

    return twin_page(folder)


# By the file that identifies each kind of folder: its name, and the function that makes its page.
KINDS: dict[str, tuple[str, Callable[[Path], Page]]] = {
    "comparison.json": ("comparison", _comparison),
    "capacity.json": ("capacity study", _capacity),
    "sweep.csv": ("sweep", _sweep),
    "validation.json": ("validation", _validation),
    "predictions.csv": ("twin of a server", _twin),
    "meta.json": ("result", _result),
}
WRITERS = (
    "busdoor compare",
    "busdoor simulate",
    "busdoor capacity",
    "busdoor sweep",
    "busdoor validate",
    "busdoor twin --url",
)
