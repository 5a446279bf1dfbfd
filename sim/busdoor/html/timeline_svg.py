"""Timelines as SVG: all lengths are shares, so that they fit any width of screen."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from busdoor.html.timeline_frames import Scene, Window, bars
from busdoor.plots.phases import PIECES

BAR_SHARE = 0.8  # of a row; the rest separates the slots
LETTER_SHARE = 0.03  # of the width: what a letter needs on a phone
MIN_PERCENT = 0.02  # of the width: narrower than a fifth of a pixel is not drawn


def slot_bars(rows: int) -> str:
    """Draw a bar per slot, and in it what the script widens: the progress of its request."""
    empty = "".join(_rect(0, 100, slot, rows, ' class="empty"') for slot in range(rows))
    return empty + "".join(_rect(0, 0, slot, rows, ' class="rider"') for slot in range(rows))


def lanes(scene: Scene, window: Window) -> str:
    """Draw every stay: dark in prefill, light in decode, hatched when its request has finished."""
    rows = scene.rows(window)
    drawn: dict[str, list[str]] = {kind: [] for kind, *_ in PIECES}
    for slot, *moments in bars(scene, window):
        percent = [round(min(100.0, moment / (10 * window.frames)), 3) for moment in moments]
        for (kind, *_), left, right in zip(PIECES, percent, percent[1:], strict=False):
            if right - left > MIN_PERCENT:
                drawn[kind].append(_rect(left, right - left, slot, rows))
    empty = "".join(_rect(0, 100, slot, rows) for slot in range(rows))
    groups = {"empty": empty} | {kind: "".join(rects) for kind, rects in drawn.items()}
    groups["letters"] = _letters(scene, window, rows)
    return "".join(f'<g class="{name}">{content}</g>' for name, content in groups.items())


def _rect(left: float, width: float, slot: int, rows: int, more: str = "") -> str:
    top, height = 100 * (slot + (1 - BAR_SHARE) / 2) / rows, 100 * BAR_SHARE / rows
    return (
        f'<rect x="{left:.6g}%" y="{top:.4g}%" width="{width:.4g}%" height="{height:.4g}%"{more}/>'
    )


def _letters(scene: Scene, window: Window, rows: int) -> str:
    """Write A, B, C in bars that have room, where the alphabet lasts."""
    if len(scene.run.requests) > len(ascii_uppercase):
        return ""
    return "".join(
        _letter(stay, window, rows)
        for stay in scene.stays.to_dict("records")
        if stay["slot"] < rows
    )


def _letter(stay: Mapping[Any, Any], window: Window, rows: int) -> str:
    left, right = stay["prefill_end_s"] / window.end_s, min(1.0, stay["done_s"] / window.end_s)
    if right - left < LETTER_SHARE:
        return ""
    letter, low = ascii_uppercase[int(stay["request_id"])], 100 * (stay["slot"] + 0.5) / rows
    return f'<text x="{50 * (left + right):.5g}%" y="{low:.5g}%">{letter}</text>'
