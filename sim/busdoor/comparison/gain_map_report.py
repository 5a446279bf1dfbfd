"""The map of the gain as words, tables, a figure, a folder and a page."""

from __future__ import annotations

from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.comparison.folder import saved_config
from busdoor.comparison.gain_map import GainMap
from busdoor.comparison.gain_map_figure import (
    OVERLOADED,
    cell_text,
    draw_panel,
    plot_map,
    title,
    values,
)
from busdoor.comparison.gain_map_measured import MEASURED
from busdoor.config.subject import subject
from busdoor.core.json import plain, read_object, write_json
from busdoor.core.names import listed
from busdoor.core.saved import Keys, check_columns, check_keys, read_csv, write_csv
from busdoor.core.study_folder import StudyFolder
from busdoor.html.page import Page, Section
from busdoor.html.sections import provenance
from busdoor.html.svg import figure
from busdoor.html.tables import html_table
from busdoor.plots.save import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKER = "map.json"
_KEYS: Keys = {"verdict": str, "heading": str, "config": dict, "versions": dict, "cells": list}
_PANEL_IN = 3.6


def verdict(found: GainMap) -> str:
    """Return the range of the saturated gain, what it depends on, and how the measured pairs lie."""
    gains = found.panel(inf) if inf in found.loads else found.panel(found.loads[-1])
    best = gains.min()  # over the batch sizes: static batching at its best of them
    ends = [f"{best.iloc[place]:.1f}× at a spread of {best.index[place]:g}" for place in (0, -1)]
    parts = [
        f"Against static batching at the best of these batch sizes, {found.continuous} gains "
        f"{' and '.join(ends)} when saturated; at the smallest batches {gains.max().max():.1f}×."
    ]
    if len(found.measured):
        worst = 100 * found.measured["error"].abs().max()
        parts.append(
            f"{len(found.measured)} measured pairs ({listed(sorted(set(found.measured['machine'])))}) "
            f"lie within {worst:.1f} % of their predictions."
        )
    return " ".join(parts)


def heading(found: GainMap) -> str:
    """Return what was run."""
    count = found.config.replications
    return (
        f"{found.continuous} over static on {found.config.where}; outputs gamma with mean "
        f"{found.mean_output_tokens:.0f}; {count} replication{'s' * (count > 1)}, the same draws "
        f"everywhere; loads are shares of what {found.continuous} carries"
    )


def panel_rows(found: GainMap, load: float) -> list[tuple[str, list[str]]]:
    """Return a row per batch size and a cell per spread, with intervals."""
    cells = found.cells.xs(load, level="load")
    return [
        (str(size), [cell_text(row) for _, row in own.iterrows()])
        for size, own in cells.groupby("batch_size")
    ]


def head(load: float) -> str:
    """Return the head of a load's table."""
    return f"{title(load)[0].upper()}{title(load)[1:]}"


def spreads(found: GainMap) -> list[str]:
    """Return the heads of the columns of `panel_rows`."""
    return [f"spread {spread:g}" for spread in sorted(set(found.cells.index.get_level_values(2)))]


def measured_rows(found: GainMap) -> list[tuple[str, list[str]]]:
    """Return a row per measured pair: place, measured, predicted, error."""
    return [
        (
            f"{row['machine']}: {row['run']}",
            [
                f"{row['load']:.2f}" if isfinite(row["load"]) else "burst",
                f"{row['batch_size']:.0f}",
                f"{row['spread']:.2f}",
                f"{row['measured']:.2f}×",
                f"{row['predicted']:.2f}×",
                f"{100 * row['error']:+.1f} %",
            ],
        )
        for _, row in found.measured.iterrows()
    ]


MEASURED_HEADS = ("load", "batch size", "spread", "measured", "predicted", "error")


def to_json(found: GainMap) -> dict[str, Any]:
    """Return the numbers as JSON has them; a load of null is saturated."""
    return {
        "complete": found.complete,
        "verdict": verdict(found),
        "heading": heading(found),
        "continuous": found.continuous,
        "mean_output_tokens": found.mean_output_tokens,
        "cells": plain(found.cells.reset_index().to_dict("records")),
        "measured": plain(found.measured.to_dict("records")),
        "config": found.config.to_dict(),
        "versions": found.versions,
    }


def write(found: GainMap, place: StudyFolder) -> Path:
    """Write map.json, map.csv, measured.csv and the figure."""
    folder = place.part
    write_json(folder / MARKER, to_json(found))
    write_csv(found.cells, folder / "map.csv")
    write_csv(found.measured, folder / "measured.csv", index=False)
    place.kept = True
    save_figure(plot_map(found), folder / "plots" / "map")
    return place.publish()


def load(folder: Path) -> GainMap:
    """Read what `write` wrote; ValueError if it is something else."""
    about = read_object(folder / MARKER)
    check_keys(about, str(folder / MARKER), _KEYS)
    numbers = ("load", "batch_size", "spread", "gain", "low", "high")
    cells = check_columns(read_csv(folder / "map.csv"), folder / "map.csv", numbers, ())
    cells["overloaded"] = cells["overloaded"].astype(bool)
    measured = check_columns(
        read_csv(folder / "measured.csv"), folder / "measured.csv", MEASURED[2:-1]
    )
    return GainMap(
        saved_config(about),
        about["continuous"],
        about["mean_output_tokens"],
        cells.set_index(["load", "batch_size", "spread"]),
        measured,
        bool(about["complete"]),
        about["versions"],
    )


def map_page(found: GainMap) -> Page:
    """Return a map as a page: hovering over a place shows its value."""
    plots = "".join(
        figure(
            partial(_panel, found=found, load=load),
            head(load),
            height_in=_PANEL_IN,
            values=list(values(found, load)),
        )
        for load in found.loads
    )
    words = f"<p>Spread of output lengths across, static batch size up; {OVERLOADED}.</p>"
    tables = "".join(
        html_table(
            [("batch size", spreads(found)), *panel_rows(found, load)],
            caption=f"{head(load)}; 95 % intervals.",
        )
        for load in found.loads
    )
    sections = [Section("The map", f"{words}<div class='plots'>{plots}</div>")]
    if len(found.measured):
        table = html_table([("pair", MEASURED_HEADS), *measured_rows(found)])
        sections.append(Section("Measured pairs", table))
    sections += [Section("The numbers", tables), provenance(found.config.to_dict(), found.versions)]
    where = subject(
        found.config.to_dict(), without=("workload.name",)
    )  # the map has its own lengths
    title = f"Where does continuous batching pay {where}?"
    return Page(title, heading(found), verdict(found), tuple(sections))


def _panel(ax: Axes, found: GainMap, load: float) -> None:
    draw_panel(ax, found, load)
    ax.set_xlabel("spread of output lengths")
