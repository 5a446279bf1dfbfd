"""matplotlib's figures as SVG of the page: its font, its colours, and nothing invisible."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING
from zlib import crc32

from busdoor.html.hover import hover_circles, value_circles
from busdoor.html.palette import with_variables
from busdoor.plots.save import number_ids
from busdoor.plots.style import new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# a phone's width at 72 pixels an inch: letters keep their size there
WIDTH_IN, HEIGHT_IN = 4.3, 2.9
_DIGITS = 1  # of a line's points: a tenth of a pixel is not seen
_FINE_DIGITS = 2  # of everything else: a marker is a few pixels wide

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-\d+)?")
_TAG = re.compile(r"<[^>]*>")
_PATH = re.compile(r'(?<= d=")[^"]+(?=")')
# matplotlib before 3.11 writes it so
_FONT = re.compile(r"font: (?:(bold|\d+) )?([\d.]+px)[^;\"]*")
_REFERENCE = re.compile(r'(?:url\(#|href="#)([\w-]+)')


@styled
def figure(
    draw: Callable[[Axes], object],
    caption: str,
    height_in: float = HEIGHT_IN,
    width_in: float = WIDTH_IN,
    values: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Draw into one panel, and return it as an HTML figure.

    The caption is also the text for a screen reader; the page scales the size in inches. `values`
    are points of the panel with the text that each shows under the pointer; by default those of its
    lines and bars.

    >>> figure(lambda ax: ax.plot([0, 1]), "A line")[:48]
    '<figure><figcaption>A line</figcaption><svg clas'
    """
    from matplotlib import rc_context

    fig = new_figure(width_in, height_in)
    ax = fig.subplots()
    draw(ax)
    text = StringIO()
    # Text stays text: it can be searched, read aloud, and takes the page's font.
    with rc_context({"svg.fonttype": "none", "savefig.facecolor": "none"}):
        fig.savefig(text, format="svg", metadata={"Date": None})
    drawn = inline(number_ids(text.getvalue()), caption)
    circles = value_circles(ax, values) if values else hover_circles(fig)
    shown = drawn.removesuffix("</svg>") + circles + "</svg>"
    return f"<figure><figcaption>{escape(caption)}</figcaption>{shown}</figure>"


def inline(svg: str, label: str) -> str:
    """Return a file of matplotlib's (`svg.fonttype` none) as an element of a page.

    The label is for a screen reader.
    """
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    body = re.sub(r"<defs>\s*</defs>", "", body)
    body = _PATH.sub(lambda match: thin(match[0]), body)
    # words between them stay as they are
    body = _TAG.sub(lambda tag: _NUMBER.sub(_shorter, tag[0]), body)
    body = body.replace("xlink:href", "href")
    body = _FONT.sub(
        lambda match: f"font-size: {match[2]}; font-weight: {match[1] or 'normal'}", body
    )
    body = re.sub(r"font-family: [^;\"]*(; )?| transform=\"rotate\(-0 [^\"]*\"", "", body)
    body = re.sub(r'fill="(#\w{6})"', r'style="fill: \1"', body)
    body = with_variables(_own_ids(body, label))
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    return (
        f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.{_FINE_DIGITS}f}".rstrip("0").rstrip(".")


def _own_ids(body: str, label: str) -> str:
    """Replace ids by ones unique on the page, and drop those that nothing refers to."""
    prefix = f"f{crc32((label + body).encode()):08x}"
    used = {
        name: f"{prefix}-{number}"
        for number, name in enumerate(sorted(set(_REFERENCE.findall(body))))
    }
    body = re.sub(
        r' id="([^"]+)"', lambda match: f' id="{used[match[1]]}"' if match[1] in used else "", body
    )
    return _REFERENCE.sub(lambda match: match[0].replace(match[1], used[match[1]]), body)


def thin(path: str) -> str:
    """Round a path of straight lines, and drop points that then change nothing.

    >>> thin("M 0.01 5.0 L 1.0 5.0 L 2.04 5.01 L 2.0 9.04 z")
    'M0 5 2 5 2 9z'
    >>> thin("M 0.5 1 Q 2 3 4 5")
    'M 0.5 1 Q 2 3 4 5'
    """
    if not set(re.findall(r"[a-zA-Z]", path)) <= set("MLz"):
        return path
    return "".join(_thin_stroke(stroke) for stroke in path.split("M")[1:])


def _thin_stroke(stroke: str) -> str:
    numbers = [round(float(number), _DIGITS) for number in re.findall(r"[-\d.e]+", stroke)]
    kept: list[tuple[float, float]] = []
    for point in zip(numbers[::2], numbers[1::2], strict=True):
        if len(kept) > 1 and _on_the_way(kept[-2], kept[-1], point):
            kept.pop()
        if not kept or point != kept[-1]:
            kept.append(point)
    # a line of no length still has its round or square ends
    points = kept if len(kept) > 1 else kept * 2
    return "M" + " ".join(f"{x:g} {y:g}" for x, y in points) + ("z" if "z" in stroke else "")


def _on_the_way(
    begin: tuple[float, float], middle: tuple[float, float], end: tuple[float, float]
) -> bool:
    """Return whether the middle lies between the others on a level or upright line."""
    return any(
        begin[axis] == middle[axis] == end[axis]
        and (middle[other] - begin[other]) * (end[other] - middle[other]) >= 0
        for axis, other in ((0, 1), (1, 0))
    )
