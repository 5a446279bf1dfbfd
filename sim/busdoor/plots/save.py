"""Figures as files: PNG and SVG, the same bytes for the same figure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.plots.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MADE_ID = re.compile(r'(?:(?<=id=")|(?<=#))([a-z])[0-9a-f]{10}(?=["\)_])')


@styled
def save_figure(figure: Figure, path_without_suffix: str | Path) -> list[Path]:
    """Write a figure as PNG and as SVG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write. It need not belong to pyplot.
    path_without_suffix : str or Path
        Where, without `.png` and `.svg`. The folder is created.

    Returns
    -------
    list of Path
        The two files.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from tempfile import mkdtemp
    >>> [path.name for path in save_figure(Figure(), Path(mkdtemp()) / "empty")]
    ['empty.png', 'empty.svg']
    """
    stem = Path(path_without_suffix)
    stem.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}}
    paths = [stem.with_name(stem.name + suffix) for suffix in metadata]
    with _laid_out(figure):
        for path in paths:
            figure.savefig(path, metadata=metadata[path.suffix])
    paths[1].write_text(number_ids(paths[1].read_text(encoding="utf-8")), encoding="utf-8")
    return paths


def number_ids(svg: str) -> str:
    """Return an SVG with matplotlib's ids, which depend on memory, numbered in order.

    >>> number_ids('<g clip-path="url(#p2cf7ea653f)"/><clipPath id="p2cf7ea653f"/>')
    '<g clip-path="url(#p1)"/><clipPath id="p1"/>'
    """
    numbers: dict[str, str] = {}
    return _MADE_ID.sub(
        lambda made: numbers.setdefault(made[0], f"{made[1]}{len(numbers) + 1}"), svg
    )


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay a figure out once for all formats: constrained layout takes longer than drawing."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    engine.execute(figure)
    figure.set_layout_engine("none")
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
