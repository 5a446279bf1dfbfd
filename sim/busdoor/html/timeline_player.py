"""The bus and the door side by side: timelines, counters, and the data that the slider plays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from busdoor.html.patterns import legend, paints, patterns
from busdoor.html.template import fill
from busdoor.html.timeline_frames import Scene, Window, bars, counters, round_step
from busdoor.html.timeline_svg import lanes, slot_bars
from busdoor.plots.hatches import SLOT_LABELS
from busdoor.plots.runs import Run, count_slots
from busdoor.plots.style import identity

MAX_TICKS = 6  # labels under the time axis that do not touch on a phone
COUNTERS = {
    "answered": "answered",
    "useful": "useful share so far",
    "waiting": "waiting for a slot",
    "opened": "door opened",
}


class Side(NamedTuple):
    """One of the runs shown: its policy's name, and the picture beside it, bus or door."""

    name: str
    kind: str
    run: Run


def stage(*sides: Side) -> str:
    """Return the timelines of one or two runs, their counters, and a slider that plays them.

    Without a script it shows the last frame, as it does on paper.
    """
    scenes = [Scene(side.run) for side in sides]
    window = Window.of(scenes)
    counts = [counters(scene, window) for scene in scenes]
    data = {
        "step_s": window.step_s,
        "digits": _digits(window.step_s),
        "frames": window.frames,
        "sides": [
            {"name": side.name, "rows": scene.rows(window), "bars": bars(scene, window), **own}
            for side, scene, own in zip(sides, scenes, counts, strict=True)
        ],
    }
    return fill(
        "stage.html",
        sides="\n".join(
            _side(f"{side.kind}-{number}", side, scene, own, window)
            for number, (side, scene, own) in enumerate(zip(sides, scenes, counts, strict=True))
        ),
        legend=legend(SLOT_LABELS, "slots"),
        notes=escape(" ".join(_notes(sides, scenes, window))),
        frames=window.frames,
        end=clock_text(window.frames, window.step_s),
        film=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )


def clock_text(frame: int, step_s: float) -> str:
    """Write the time of a frame with the digits that its step has.

    >>> clock_text(123, 0.1), clock_text(13, 10.0)
    ('12.3 s', '130 s')
    """
    return f"{frame * step_s:,.{_digits(step_s)}f} s"


def _digits(step_s: float) -> int:
    return next(digits for digits in range(16) if round(step_s, digits) == step_s)


def useful_text(permille: int) -> str:
    """Write a share that is given in per mille.

    >>> useful_text(438), useful_text(1000), useful_text(-1)
    ('43.8 %', '100.0 %', '–')
    """
    return "–" if permille < 0 else f"{permille / 10:.1f} %"


def _side(
    key: str, side: Side, scene: Scene, counts: Mapping[str, list[int]], window: Window
) -> str:
    color, rows = identity(str(side.run.meta["policy"]))["color"], scene.rows(window)
    answered, useful = counts["answered"][-1], useful_text(counts["useful"][-1])
    label = (
        f"Timeline of {side.name}: {_slots(scene, rows)} over "
        f"{clock_text(window.frames, window.step_s)}. By the end {answered:,} requests are "
        f"answered; {useful} of what the held slots did was useful."
    )
    return fill(
        "side.html",
        title=f"The {side.kind}: {escape(side.name)}",
        icon=fill(f"{side.kind}.svg"),
        paints=paints(key, color),
        label=escape(label),
        slots=escape(_slots(scene, rows)),
        rows=rows,
        patterns=patterns(key, color),
        slot_bars=slot_bars(rows),
        lanes=lanes(scene, window),
        ticks=_ticks(window),
        counters=_counters(counts),
    )


def _slots(scene: Scene, rows: int) -> str:
    held = max(count_slots(scene.run), scene.used_slots)
    return f"{rows} slots" if rows == held else f"{rows} of {held:,} slots"


def _ticks(window: Window) -> str:
    """Label round times under the timeline, each as far from the left as it is late."""
    every = max(1, round(round_step(window.end_s / MAX_TICKS) / window.step_s))
    return "".join(
        f'<span style="left: {100 * frame / window.frames:.6g}%">{frame * window.step_s:.6g} '
        f"s</span>"
        for frame in range(0, window.frames + 1, every)
    )


def _counters(counts: Mapping[str, list[int]]) -> str:
    last = {key: f"{values[-1]:,}" for key, values in counts.items()}
    last |= {"useful": useful_text(counts["useful"][-1]), "opened": last["opened"] + "×"}
    return "".join(
        f'<div><dt>{title}</dt><dd data-count="{key}">{last[key]}</dd></div>'
        for key, title in COUNTERS.items()
    )


def _notes(sides: tuple[Side, ...], scenes: list[Scene], window: Window) -> list[str]:
    """Return notes on what is not shown, and on what the counters count."""
    end, longest_s = clock_text(window.frames, window.step_s), max(scene.end_s for scene in scenes)
    notes = [
        f"Shown: the whole run, {end}."
        if window.whole
        else f"Shown: the first {end} of {longest_s:,.0f} s."
    ]
    if any(scene.used_slots > scene.rows(window) for scene in scenes):
        notes.append(
            "Slots beyond the rows shown are not drawn, but the counters count the whole server."
        )
    for side, scene in zip(sides, scenes, strict=True):
        if len(scene.replicas) > 1:
            notes.append(f"Of the {len(scene.replicas)} servers of {side.name}, this is the first.")
    return notes
