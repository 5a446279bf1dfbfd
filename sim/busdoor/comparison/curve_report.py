"""A curve over the offered load as words, tables, figures, a folder and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from busdoor.comparison.curve import FEWER, LONGER, Curve
from busdoor.comparison.folder import saved_config
from busdoor.config.subject import subject
from busdoor.core.format import NOTHING, number, percent
from busdoor.core.json import plain, read_object, write_json
from busdoor.core.names import listed
from busdoor.core.saved import Keys, check_columns, check_keys, read_csv, write_csv
from busdoor.core.study_folder import StudyFolder
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import html_table
from busdoor.metrics.slo import SLO
from busdoor.plots.hatches import drop_legend
from busdoor.plots.save import save_figure
from busdoor.plots.style import INK, PALE, new_figure, styled, tint
from busdoor.plots.variants import identities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKER = "curve.json"
_KEYS: Keys = {"verdict": str, "config": dict, "slo": dict, "reference": str, "versions": dict}
_PANEL_IN = 3.4
_OPEN = "hollow: the policy cannot keep up, and its E2E is as long as the run"


class Panel(NamedTuple):
    """One quantity of the curve: its column, its title, and how a value is written."""

    key: str
    title: str
    write: Callable[[float], str]
    log: bool = False


def _times(value: float) -> str:
    return NOTHING if not isfinite(value) else f"{number(value)}×"


def panels(curve: Curve) -> list[Panel]:
    """Return what is shown of a curve: cost where there is a price, else GPU-hours."""
    priced = "cost_per_million_tokens" in curve.points
    return [
        Panel("e2e_ratio", f"mean E2E over that of {curve.reference}", _times, log=True),
        Panel("within", "requests within the SLO", partial(percent, digits=0)),
        Panel("idle", "idle slot time", partial(percent, digits=0)),
        Panel("cost_per_million_tokens", "cost per million output tokens", number, log=True)
        if priced
        else Panel("gpu_hours_per_million_tokens", "GPU-hours per million output tokens", number, log=True),
    ]  # fmt: skip


def panel_rows(curve: Curve, panel: Panel) -> list[tuple[str, list[str]]]:
    """Return a row per load and a cell per policy: the mean, and its 95 % interval."""
    rows: dict[Any, Any] = curve.points.to_dict("index")
    loads = dict.fromkeys(curve.points.index.get_level_values("load"))
    return [
        (f"{load:g}", [_cell(rows[load, name], panel) for name in curve.policies]) for load in loads
    ]


def _cell(row: Mapping[str, Any], panel: Panel) -> str:
    value, low, high = (float(row[panel.key + end]) for end in ("", "_low", "_high"))
    if not isfinite(low) or high - low <= 1e-9 * abs(value):
        return panel.write(value)
    bare = [panel.write(end).rstrip(" %×") for end in (low, high)]
    return f"{panel.write(value)} ({' to '.join(bare)})"


def heading(curve: Curve) -> str:
    """Return what load 1 is, and what ran."""
    count = curve.config.replications
    return (
        f"Load 1 is {curve.capacity_rps:.3g} requests/s, all that {curve.reference} (the best "
        f"continuous policy) carries on {curve.config.where}; {count} "
        f"replication{'s' * (count > 1)}, the same for all; {curve.config.prediction}"
    )


def verdict(curve: Curve) -> str:
    """Return where the curves part, and which load each policy carries."""
    keeps_up: dict[Any, Any] = curve.keeps_up.to_dict("index")
    part = []
    for name, row in curve.partings.iterrows():
        up = keeps_up[str(name)]
        span = f" ({up['low']:.2f} to {up['high']:.2f})" if isfinite(up["low"]) else ""
        words = f"{name} carries {up['load']:.2f}{span} of that"
        when = [
            f"{text} from {_onset(load, curve)}"
            for text, load in (
                (f"answers over {100 * (LONGER - 1):.0f} % longer", row["longer"]),
                (f"over {100 * FEWER:.0f} % more of them beyond the SLO", row["late"]),
            )
            if isfinite(load)
        ]
        part.append(f"{words}, {listed(when) if when else 'and no load tells it apart'}.")
    said = f"{curve.reference} carries {curve.capacity_rps:.3g} requests/s"
    return " ".join([f"{said}; the SLO is {curve.slo}.", *part])


def _onset(load: float, curve: Curve) -> str:
    lowest = float(curve.points.index.get_level_values("load").min())
    return f"load {load:g} (the lowest) on" if load == lowest else f"load {load:g} on"


@styled
def plot_curve(curve: Curve) -> Figure:
    """Draw the four quantities over the load; bands are 95 % intervals."""
    fig = new_figure(9.2, 6.4)
    for place, panel in enumerate(panels(curve), start=1):
        ax = fig.add_subplot(2, 2, place)
        draw_panel(ax, curve, panel)
        ax.set_title(panel.title, fontsize=9)
        drop_legend(ax)
    handles, labels = ax.get_legend_handles_labels()
    words = f"offered load, a share of what {curve.reference} carries; {_OPEN}"
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=words)
    return fig


def draw_panel(ax: Axes, curve: Curve, panel: Panel) -> None:
    """Draw one quantity, a line per policy; hollow where it cannot keep up."""
    for name, look in identities(curve.policies).items():
        own = curve.points.xs(name, level="policy")
        low, high = (own[panel.key + end].fillna(own[panel.key]) for end in ("_low", "_high"))
        ax.fill_between(own.index, low, high, color=tint(look["color"], 0.25), linewidth=0)
        ax.plot(own.index, own[panel.key], **look, markersize=4)
        hollow = own[own["overloaded"]]
        shape: dict[str, Any] = {
            "marker": look["marker"],
            "color": look["color"],
            "linestyle": "none",
        }
        ax.plot(hollow.index, hollow[panel.key], **shape, markersize=4, markerfacecolor="white")
    ax.axvline(1.0, color=PALE, linewidth=1.0, zorder=0)
    ax.set_xlim(left=0)
    if panel.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter("")
    else:
        ax.set_ylim(-0.03, 1.05)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.tick_params(colors=INK)


def values(curve: Curve, panel: Panel) -> Iterator[tuple[float, float, str]]:
    """Yield the points of a panel with the text that shows where the pointer rests."""
    rows: dict[Any, Any] = curve.points.to_dict("index")
    for (load, name), row in rows.items():
        late = "; cannot keep up" if row["overloaded"] else ""
        yield load, row[panel.key], f"{name}, load {load:g}: {_cell(row, panel)}{late}"


def to_json(curve: Curve) -> dict[str, object]:
    """Return the numbers as JSON has them."""
    points = curve.points.reset_index().to_dict("records")
    return {
        "complete": curve.complete,
        "verdict": verdict(curve),
        "reference": curve.reference,
        "capacity_rps": curve.capacity_rps,
        "keeps_up": plain(curve.keeps_up.to_dict("index")),
        "partings": plain(curve.partings.to_dict("index")),
        "points": plain(points),
        "slo": curve.slo.to_dict(),
        "config": curve.config.to_dict(),
        "versions": curve.versions,
    }


def write(curve: Curve, place: StudyFolder) -> Path:
    """Write curve.json, points.csv, the replications and the figure."""
    folder = place.part
    write_json(folder / MARKER, to_json(curve))
    write_csv(curve.points, folder / "points.csv")
    write_csv(curve.runs, folder / "runs.csv")
    write_csv(curve.capacities, folder / "capacities.csv")
    place.kept = True
    save_figure(plot_curve(curve), folder / "plots" / "curve")
    return place.publish()


def load(folder: Path) -> Curve:
    """Read what `write` wrote; ValueError if it is something else."""
    about = read_object(folder / MARKER)
    check_keys(about, str(folder / MARKER), _KEYS)
    config = saved_config(about)
    runs = _table(folder / "runs.csv", ["load", "policy", "replication"])
    rates = _table(folder / "capacities.csv", ["policy", "replication"])
    slo = SLO.from_table(about["slo"])
    whole, kept = bool(about.get("complete")), about["versions"]
    return Curve(config, slo, about["reference"], runs, rates, whole, kept)


def _table(file: Path, keys: list[str]) -> pd.DataFrame:
    numbers = [key for key in keys if key != "policy"]
    return check_columns(read_csv(file), file, numbers, ("policy",)).set_index(keys)


def curve_page(curve: Curve) -> Page:
    """Return a curve as a page: hovering over a point shows its value."""
    shown = []
    for panel in panels(curve):
        drawn = figure(
            partial(_with_legend, curve=curve, panel=panel),
            panel.title,
            height_in=_PANEL_IN,
            values=list(values(curve, panel)),
        )
        table = html_table(panel_rows(curve, panel), curve.policies, "Means with 95 % intervals.")
        shown.append((panel.title, drawn, table))
    plots = "".join(drawn for _, drawn, _ in shown)
    sections = [
        Section("Over the load", f"<p>Load 1 is the capacity; {_OPEN}.</p><div class='plots'>{plots}</div>"),
        *(Section(title[0].upper() + title[1:], table) for title, _, table in shown),
        provenance(curve.config.to_dict(), curve.versions),
    ]  # fmt: skip
    title = f"{listed(curve.policies, 'or')} at which load? {subject(curve.config.to_dict())}"
    return Page(title, heading(curve), verdict(curve), tuple(sections))


def _with_legend(ax: Axes, curve: Curve, panel: Panel) -> None:
    draw_panel(ax, curve, panel)
    ax.set_xlabel("offered load")
    ax.get_figure().legend(loc="outside lower center", ncols=2)  # type: ignore[union-attr]
