"""A comparison as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from busdoor import plots
from busdoor.comparison.bounds import BOUNDS, HEADS, bound_rows, violations
from busdoor.comparison.data import ComparisonData
from busdoor.comparison.summary_text import best_policy, verdict
from busdoor.comparison.table_text import (
    LADDER,
    LADDER_HEADS,
    chance_lines,
    comparison_rows,
    gain_rows,
    heading,
    ladder_rows,
)
from busdoor.core.names import listed
from busdoor.html.page import Page, Section
from busdoor.html.sections import (
    course_plots,
    latency_plots,
    provenance,
    timelines,
    waste_plots,
    words_used,
)
from busdoor.html.svg import figure
from busdoor.html.tables import bullets, html_table

if TYPE_CHECKING:
    import pandas as pd


LADDER_WIDTH_IN = 5.6
GAIN_HEIGHT_IN = (0.9, 0.34)  # of the axis, and of each policy
_PLAY = (
    "The same requests, on the same GPU. Press play: each row is a slot, and fills as its answer "
    "is written. The bus takes no request on before its last stop; at the door, a finished "
    "request leaves and a waiting one enters."
)


def comparison_page(comparison: ComparisonData) -> Page:
    """Return a comparison as a page."""
    results = comparison.results
    sections = [
        timelines("The bus and the door", _PLAY, comparison.bus_and_door),
        _numbers(comparison),
        *_chances(comparison),
        *_ladder(comparison),
        *_bounds(comparison),
        latency_plots(results),
        waste_plots(results),
        course_plots(results),
        words_used(),
        provenance(
            comparison.config.to_dict(), next(iter(results.values())).meta.get("versions", {})
        ),
    ]
    return Page(_title(comparison), heading(comparison), verdict(comparison), tuple(sections))


def _title(comparison: ComparisonData) -> str:
    policies = [
        policy.label for policy in comparison.config.policies if policy.label in comparison.policies
    ]
    first = next(iter(comparison.results.values()))
    where = f"{first.meta['trace']} on {comparison.config.where}"
    return f"{listed(policies, 'or')}? {where}, seed {comparison.config.seed}"


def _numbers(comparison: ComparisonData) -> Section:
    policies, best = comparison.policies, best_policy(comparison)
    table = html_table(comparison_rows(comparison), policies, "Means over the replications.", best)
    if len(comparison.policies) < 2 or comparison.gain.drop(index=comparison.static).isna().any(
        axis=None
    ):
        return Section("The numbers", table)
    plot = figure(
        lambda ax: plots.plot_gain_bars(comparison.gain, comparison.static, ax=ax),
        "Gain over static batching",
        _height_in(comparison.gain),
    )
    gains = html_table(
        gain_rows(comparison), policies, "Ratios of saturated tokens/s, with 95 % intervals.", best
    )
    return Section(
        "The numbers", f'<div class="beside">{table}<div class="plots">{plot}</div></div>{gains}'
    )


def _chances(comparison: ComparisonData) -> list[Section]:
    lines = chance_lines(comparison)
    return [Section("How sure the SLO is met", bullets(lines))] if lines else []


def _ladder(comparison: ComparisonData) -> list[Section]:
    if comparison.ladder.empty:
        return []
    table = html_table([("", LADDER_HEADS), *ladder_rows(comparison)], caption=LADDER)
    size_in = _height_in(comparison.ladder), LADDER_WIDTH_IN
    plot = figure(lambda ax: plots.plot_ladder(comparison.ladder, ax=ax), "The ladder", *size_in)
    return [Section("What each step is worth", f'<div class="plots wide">{plot}</div>{table}')]


def _bounds(comparison: ComparisonData) -> list[Section]:
    if comparison.bounds.empty:
        return []
    table = html_table([("", HEADS), *bound_rows(comparison.bounds)], caption=BOUNDS)
    wrong = bullets(f"{line}." for line in violations(comparison.bounds))
    return [Section("Beside their closed forms", table + wrong)]


def _height_in(rows: pd.DataFrame) -> float:
    axis, each = GAIN_HEIGHT_IN
    return axis + each * len(rows)
