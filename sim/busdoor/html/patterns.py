"""The figures' fills and hatches as SVG: what is wasted is hatched, what is empty is dotted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from busdoor.html.palette import variable
from busdoor.plots.hatches import NEUTRAL, SLOT_LABELS, look

# By matplotlib's hatch letter: what repeats, in a square of so many pixels, drawn in the colour of
# `style`.
_MOTIFS = {
    "/": (5, '<path d="M-1 1 1 -1 M0 5 5 0 M4 6 6 4" stroke-width="1.4" style="{style}"/>'),
    "x": (5, '<path d="M0 5 5 0 M0 0 5 5" stroke-width="0.7" style="{style}"/>'),
    ".": (6, '<circle cx="3" cy="3" r="0.5" style="{style}"/>'),
}


def paint(part: str, key: str, color: str) -> str:
    """Return the fill of a part of a slot's time or of the memory, as CSS has it.

    `part` is as `busdoor.plots.hatches.look` takes it, `color` the policy's, like #24292f. `key`
    differs for each drawing of a page; `patterns` of the same key defines what hatched fills refer
    to.

    >>> paint("prefill", "bus", "#c4501b"), paint("finished", "bus", "#c4501b")
    ('var(--cc4501b)', 'url(#finished-bus)')
    """
    fill = look(part, color)
    face = str(fill["facecolor"]).replace("white", "#ffffff")
    return f"url(#{part}-{key})" if fill["hatch"] else variable(face)


def paints(key: str, color: str, parts: Iterable[str] = SLOT_LABELS) -> str:
    """Return CSS variables: the policy's colour, and each part's fill under the part's name."""
    fills = {"policy": variable(color)} | {part: paint(part, key, color) for part in parts}
    return "; ".join(f"--{name}: {fill}" for name, fill in fills.items())


def patterns(key: str, color: str, parts: Iterable[str] = SLOT_LABELS) -> str:
    """Return the definitions of the hatches that `paint` refers to."""
    hatched = [part for part in parts if look(part, color)["hatch"]]
    return f"<defs>{''.join(_pattern(part, key, color) for part in hatched)}</defs>"


def _pattern(part: str, key: str, color: str) -> str:
    fill = look(part, color)
    face, line = (
        variable(str(fill[name]).replace("white", "#ffffff")) for name in ("facecolor", "edgecolor")
    )
    side, motif = _MOTIFS[fill["hatch"][0]]
    drawn = motif.format(style=f"stroke: {line}")
    return (
        f'<pattern id="{part}-{key}" width="{side}" height="{side}" patternUnits="userSpaceOnUse">'
        f'<rect width="{side}" height="{side}" style="fill: {face}"/>{drawn}</pattern>'
    )


def legend(labels: Mapping[str, str], key: str) -> str:
    """Return a legend of parts and their labels, in a colour that stands for every policy."""
    swatch = (
        '<li><svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" '
        'style="fill: {}"/></svg>{}</li>'
    )
    items = "".join(
        swatch.format(paint(part, key, NEUTRAL), escape(text)) for part, text in labels.items()
    )
    defs = (
        f'<svg class="defs" aria-hidden="true" width="0" '
        f'height="0">{patterns(key, NEUTRAL, labels)}</svg>'
    )
    return f'{defs}<ul class="key">{items}</ul>'
