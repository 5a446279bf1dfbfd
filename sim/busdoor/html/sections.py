"""Sections that several kinds of reports share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from busdoor.html.page import Section
from busdoor.html.patterns import legend
from busdoor.html.svg import figure
from busdoor.html.timeline_player import Side, stage
from busdoor.metrics.saturation import is_whole_batch
from busdoor.plots.hatches import BATCH_LABELS, KV_LABELS, drop_legend, legend_below
from busdoor.plots.kv import plot_kv
from busdoor.plots.latency import Metric, latency_s, plot_latency_cdf
from busdoor.plots.occupancy import SPACE_ABOVE, plot_occupancy
from busdoor.plots.runs import Run, count_slots
from busdoor.plots.waste import plot_waste

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTHING_SERVED = (
    "<p>Nothing was served, or the run has no iterations: there is nothing to draw.</p>"
)
COURSE_SIZE_IN = (2.5, 3.3)  # height, width: four beside one another on a desktop
WASTE_WIDTH_IN = 4.5
WASTE_HEIGHT_IN = (0.8, 0.95)  # of the axis, and of each policy
LATENCIES: dict[Metric, str] = {
    "ttft": "TTFT: time to the first token",
    "tpot": "TPOT: time per token after it",
    "e2e": "E2E: time to the last token",
}
WORDS = {
    "TTFT": "Time to first token: from a request's arrival until its answer begins.",
    "TPOT": "Time per output token after the first: how fast the answer flows.",
    "E2E": "End-to-end latency: from arrival until the answer is complete.",
    "p50, p99": "Half, or 99 of 100 requests, are at or below.",
    "slot": "A place in the batch; it holds one request at a time.",
    "useful share": "Of the slot-iterations held by requests, those that made a wanted token or "
    "read a prompt.",
    "idle slot time": "The rest of them: held slot-iterations that made no wanted token (bubbles).",
    "padding": "Positions computed only because the batch is as long as its longest prompt.",
    "saturated": "With all requests there from the start: what one server serves at most.",
    "gain": "Ratio of saturated output tokens per second, on the same GPU, model and memory.",
}


def kind_of(run: Run) -> str:
    """Return "bus" for a run of whole batches, "door" for one scheduled at every iteration."""
    return "bus" if is_whole_batch(run.meta) else "door"


def drawable(runs: Mapping[str, Run]) -> dict[str, Run]:
    """Return the runs that served a request and have their iterations."""
    return {name: run for name, run in runs.items() if len(run.iterations) and len(run.stays)}


def timelines(title: str, words: str, runs: Mapping[str, Run]) -> Section:
    """Show one or two runs slot by slot, to be played."""
    sides = [Side(name, kind_of(run), run) for name, run in drawable(runs).items()]
    body = f"<p>{escape(words)}</p>\n{stage(*sides)}" if sides else NOTHING_SERVED
    return Section(title, body)


def latency_plots(runs: Mapping[str, Run]) -> Section:
    """Draw the distributions of the latencies."""
    plots = [
        figure(partial(_latency, runs=runs, metric=metric), caption)
        for metric, caption in LATENCIES.items()
        if any(len(latency_s(run, metric)) for run in runs.values())
    ]
    words = (
        "<p>The further left a line, the sooner requests are answered; the time axes are "
        "logarithmic.</p>"
    )
    return Section("Latency", words + _grid(plots))


def _latency(ax: Axes, runs: Mapping[str, Run], metric: Metric) -> None:
    plot_latency_cdf(runs, metric, ax)
    ax.set_xlabel("")  # the caption has it
    lines = {
        str(line.get_label()): line for line in ax.get_lines() if line.get_label() != "_median"
    }
    absent = [label for label, line in lines.items() if not len(line.get_path())]
    ax.set_title("\n".join(absent), fontsize=8, fontweight="normal")
    lines = {label: line for label, line in lines.items() if label not in absent}
    drop_legend(ax)
    if len(runs) > 1:
        legend_below(ax.figure, {}, lines)


def waste_plots(runs: Mapping[str, Run]) -> Section:
    """Draw the use of slots and memory."""
    runs = drawable(runs)
    base_in, each_in = WASTE_HEIGHT_IN
    height_in = base_in + each_in * len(runs)
    captions: dict[Literal["slots", "kv"], str] = {
        "slots": "Slot-iterations: what slots did",
        "kv": "KV cache: what memory held",
    }
    plots = [
        figure(lambda ax, what=what: plot_waste(runs, what, ax), caption, height_in, WASTE_WIDTH_IN)  # type: ignore[misc]
        for what, caption in captions.items()
    ]
    words = (
        "<p>From all that a server had, down to what was useful; what is hatched or dotted "
        "was wasted or idle.</p>"
    )
    return Section(
        "Use of slots and memory", words + _grid(plots, "plots wide") if runs else NOTHING_SERVED
    )


def course_plots(runs: Mapping[str, Run]) -> Section:
    """Draw batch, queue and memory over time."""
    runs = drawable(runs)
    if not runs:
        return Section("Batch, queue and memory over time", NOTHING_SERVED)
    parts = [
        (
            "Batch and queue; the line is the number of slots held at most",
            plot_occupancy,
            BATCH_LABELS,
        ),
        ("KV cache, in tokens; the line is its capacity", plot_kv, KV_LABELS),
    ]
    body = ""
    for number, (title, plot, labels) in enumerate(parts):
        draws = {
            name: partial(_course, plot=plot, run=run, runs=runs) for name, run in runs.items()
        }
        plots = [figure(draw, name, *COURSE_SIZE_IN) for name, draw in draws.items()]
        body += f"<h3>{title}</h3>{legend(labels, f'course-{number}')}{_grid(plots, 'plots small')}"
    return Section("Batch, queue and memory over time", body)


def _course(ax: Axes, plot: Callable[..., Axes], run: Run, runs: Mapping[str, Run]) -> None:
    """Draw one run's panel with the axes of all, so that they can be compared."""
    plot(run, ax=ax)
    for each in ax.figure.axes:
        each.set_xlim(0, max(float(own.stays["leave_s"].max()) for own in runs.values()))
        each.yaxis.set_major_formatter(_thousands)
        if each.get_label() == "queue":
            each.set_ylim(
                0,
                max(
                    1.0,
                    *(1.1 * float(own.iterations["num_waiting"].max()) for own in runs.values()),
                ),
            )
    if plot is plot_occupancy:
        ax.set_ylim(0, SPACE_ABOVE * max(map(count_slots, runs.values())))
    drop_legend(ax)


def _thousands(value: float, _: object = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def words_used(words: Mapping[str, str] = WORDS) -> Section:
    """Explain the words of the page."""
    items = "".join(
        f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words.items()
    )
    return Section("Words", f'<dl class="words">{items}</dl>')


def provenance(config: Mapping[str, Any], versions: Mapping[str, str]) -> Section:
    """Show versions and configuration, which reproduce the numbers."""
    shown = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    body = f"<p>{escape(made)}.</p><details><summary>Configuration</summary><pre>{escape(shown)}</pre></details>"
    return Section("How to reproduce this", body)


def _grid(plots: list[str], name: str = "plots") -> str:
    return f'<div class="{name}">{"".join(plots)}</div>'
