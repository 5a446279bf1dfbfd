"""Colours and hatches of each kind of use and waste, the same in every figure: waste is hatched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from busdoor.plots.style import INK, PALE, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

NEUTRAL = "#57606a"
"""Stands for every policy's colour in a legend that serves several."""

INCHES_A_LETTER = 0.075  # of the legend's font, on average
SWATCH_LETTERS = 9  # what a swatch and the space around it take, in letters

SLOT_LABELS = {
    "prefill": "prefill (reads the prompt)",
    "decode": "decode (writes the answer)",
    "finished": "idle: finished, but still holds its slot",
    "empty": "empty slot",
}
BATCH_LABELS = {"working": "working", "finished": "finished, still in the batch"}
KV_LABELS = {
    "used": "used",
    "reserved": "reserved (will be written)",
    "unused": "never written",
    "holes": "fragmented (holes too small)",
    "free": "free",
}


def look(part: str, color: str) -> dict[str, Any]:
    """Return the patch properties of a part of slots or KV cache, in a policy's colour.

    >>> look("finished", "#c4501b")["hatch"]
    '/////'
    """
    deep, light, faint, line = color, tint(color, 0.42), tint(color, 0.10), tint(color, 0.6)
    faces = {
        "prefill": deep,
        "useful": deep,
        "used": deep,
        "decode": light,
        "working": light,
        "reserved": light,
    }
    faces |= {"finished": faint, "unused": faint, "stalled": tint(color, 0.25), "padding": light}
    hatches = {
        "finished": ("/////", line),
        "unused": ("/////", line),
        "stalled": ("-----", line),
        "padding": ("\\\\\\\\\\", color),
        "empty": (".....", PALE),
        "holes": ("xxxx", INK),
    }
    hatch, edge = hatches.get(part, ("", PALE if part == "free" else "none"))
    width = 0.8 if part == "free" else 0
    return {
        "facecolor": faces.get(part, "white"),
        "edgecolor": edge,
        "hatch": hatch,
        "linewidth": width,
    }


def drop_legend(ax: Axes) -> None:
    """Remove a panel's legend, if it has one."""
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()


def legend_below(
    fig: Figure | SubFigure,
    labels: Mapping[str, str],
    lines: Mapping[str, Any],
    colors: Sequence[str] = (NEUTRAL,),
) -> None:
    """Write one legend under all panels: parts, as `look` takes them, each in all colours.

    `lines` are other entries, by label. The figure is laid out by matplotlib's constrained layout.
    """
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    swatches = {
        text: tuple(Patch(**look(part, color)) for color in colors) for part, text in labels.items()
    }
    entries = {**swatches, **lines}
    handler = {tuple: HandlerTuple(ndivide=None, pad=0.15)}
    room = fig.bbox.width / fig.dpi / INCHES_A_LETTER
    rows = -(-sum(len(text) + SWATCH_LETTERS for text in entries) // int(room))
    columns = -(-len(entries) // rows)
    fig.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        handler_map=handler,
    )
