"""Tables and lists as HTML; wide tables scroll by themselves, the page does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest

from busdoor.html.palette import variable
from busdoor.plots.style import identity

_BEST = ' class="best"'


def html_table(
    rows: Iterable[tuple[str, Sequence[str]]],
    columns: Sequence[str] = (),
    caption: str = "",
    best: str = "",
) -> str:
    """Return rows (a title and cells each) as a table.

    `columns` are policies, each shown in its colour; none for a table without a head. `best` is the
    policy whose column comes first, where a phone shows it without scrolling.

    >>> html_table([("TTFT <p50>", ["35 ms"])])[47:-22]
    '<tr><th scope="row">TTFT &lt;p50&gt;</th><td>35 ms</td></tr>'
    """
    if best in columns:
        order = sorted(range(len(columns)), key=lambda place: columns[place] != best)
        columns = [columns[place] for place in order]
        rows = [(title, [cells[place] for place in order]) for title, cells in rows]
    marks = [_BEST * (name == best) for name in columns]
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>{_cells(cells, marks)}</tr>'
        for title, cells in rows
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" '
        f'tabindex="0"><table>{above}{_head(columns, marks)}<tbody>{body}</tbody></table></div>'
    )


def bullets(lines: Iterable[str]) -> str:
    """Return lines as a list; nothing of none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _cells(cells: Sequence[str], marks: Sequence[str]) -> str:
    pairs = zip_longest(cells, marks, fillvalue="")
    return "".join(
        f"<td{mark}>{escape(cell).replace(chr(10), '<br>')}</td>" for cell, mark in pairs
    )


def _head(columns: Sequence[str], marks: Sequence[str]) -> str:
    if not columns:
        return ""
    cells = "".join(
        f'<th scope="col"{mark} style="--policy: {variable(identity(name)["color"])}">'
        f"<span>{escape(name).replace(' (', '<br>(')}</span></th>"
        for name, mark in zip(columns, marks, strict=True)
    )
    return f'<thead><tr><th scope="col"></th>{cells}</tr></thead>'
