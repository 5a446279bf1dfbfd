"""A comparison as rows of plain strings."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from busdoor.comparison.chance_text import missed_text, sources_text
from busdoor.comparison.chance_text import percent as chance
from busdoor.comparison.data import ComparisonData
from busdoor.comparison.rescaled import SOURCES
from busdoor.core.format import LATENCIES, NOTHING, duration, number, percent
from busdoor.metrics.statistics import is_undecided

if TYPE_CHECKING:
    import pandas as pd


LADDER = "The ladder: one change at a time, each saturated on the same draws."
LADDER_HEADS = ("tokens/s", "× the step above (95 %)", "× static")
_EXACT_SHARE = 1e-9  # of a mean: an interval this narrow is a rounding error


def ladder_rows(comparison: ComparisonData) -> list[tuple[str, list[str]]]:
    """Return the rows of the ladder, bottom first: a title, and a cell per `LADDER_HEADS`."""
    rows = []
    for number_of, (title, row) in enumerate(comparison.ladder.iterrows()):
        step = ratio(row["factor"], row["factor_low"], row["factor_high"]) if number_of else NOTHING
        rows.append((str(title), [number(row["tokens_per_s"]), step, f"{row['over_static']:.2f}×"]))
    return rows


def ratio(value: float, low: float, high: float) -> str:
    """Write a ratio with its interval.

    >>> ratio(7.04, 6.71, 7.2), ratio(1.0, 1.0, 1.0), ratio(2.0, 0.5, 8.0)
    ('7.04× (6.71 to 7.20)', '1', '2.00× (undecided: 0.50 to 8.00)')
    >>> ratio(2.0, float("nan"), float("nan"))
    '2.00×'
    """
    if low == high == value:
        return "1"
    if isnan(value):
        return NOTHING
    undecided = "undecided: " if is_undecided(value, low, high) else ""
    return f"{value:.2f}×" if isnan(low) else f"{value:.2f}× ({undecided}{low:.2f} to {high:.2f})"


def heading(comparison: ComparisonData) -> str:
    """Return one line on what was compared."""
    first = next(iter(comparison.results.values()))
    config, rate = comparison.config, comparison.request_rate
    count = int(comparison.summaries.groupby("policy").size().max())
    arrivals = "all at once" if isnan(rate) else f"{rate:.3g}/s"
    behind = "" if config.cluster is None else f" behind {config.cluster.routers}"
    return (
        f"{first.meta['trace']}, {first.meta['num_requests']:,} requests, {arrivals}, on "
        f"{config.where}{behind}; mean of {count} replication{'s' * (count > 1)}; "
        f"{config.prediction}"
    )


def comparison_rows(comparison: ComparisonData) -> list[tuple[str, list[str]]]:
    """Return the lines of the table: a title, and a cell per policy."""
    table = comparison.table

    def line(title: str, cell: Callable[[pd.Series[Any]], str]) -> tuple[str, list[str]]:
        return title, [cell(row) for _, row in table.iterrows()]

    rows = [
        line("requests answered/s", lambda row: number(row["request_throughput"])),
        line("output tokens/s", lambda row: number(row["output_throughput"])),
    ]
    for short, key in LATENCIES.items():
        for name, kind in (("p50", "median"), ("p99", "p99")):
            rows.append(
                line(f"{short} {name}", lambda row, key=f"{kind}_{key}_ms": duration(row[key]))  # type: ignore[misc]
            )
    rows += [
        line("slots held (mean)", _held),
        line("idle slot time", lambda row: percent(row["bubble_share"])),
        line("padding computed", lambda row: percent(row["padding_share"])),
        line("KV memory wasted", lambda row: percent(row["kv_wasted_share"])),
        ("saturated: tokens/s", [_capacity(comparison, name) for name in comparison.policies]),
        (
            f"gain over {comparison.static}",
            [_gain(comparison, name) for name in comparison.policies],
        ),
        *([line("busiest over mean", _imbalance)] if "imbalance" in table else []),
        line("offered load", lambda row: percent(row["offered_load"], 0)),
        line("GPUs by throughput", lambda row: number(row["gpus"])),
    ]
    if len(comparison.chances):
        known = comparison.chances["chance"]
        cells = [chance(known.get(name, nan)) for name in comparison.policies]
        rows.append(("P(these meet the SLO)", cells))
    if "cost_per_hour" in table:
        rows += [
            line("price per hour", lambda row: f"{row['cost_per_hour']:.2f}"),
            line("cost/M output tokens", lambda row: number(row["cost_per_million_output_tokens"])),
            line("kWh/M output tokens", lambda row: number(row["kwh_per_million_output_tokens"])),
        ]
    if "slo_met" in table:
        rows.append(line("goodput, requests/s", lambda row: number(row["request_goodput"])))
        rows.append(line("SLO met", lambda row: "yes" if row["slo_met"] == 1 else "no"))
    return rows


def chance_lines(comparison: ComparisonData) -> list[str]:
    """Return a sentence per policy: how likely its GPUs meet the SLO, and what that rests on."""
    gpus, slo = comparison.table["gpus"], comparison.config.slo
    lines = []
    known: dict[Any, Any] = comparison.chances.to_dict("index")
    for policy, row in known.items():
        missed = {
            str(key).removeprefix("missed_"): share
            for key, share in row.items()
            if str(key).startswith("missed_")
        }
        widths = {key: row[f"half_width_{key}"] for key in SOURCES}
        said = {key: row[f"source_{key}"] for key in SOURCES}
        number = int(gpus[policy])
        lines.append(
            f"{number:,} GPU{'s' * (number != 1)} with {policy}: {chance(row['chance'])}, "
            f"{missed_text(missed, slo)}; of how much of the SLO it uses, {sources_text(widths, said)}."
        )
    return lines


def _held(row: pd.Series[Any]) -> str:
    """Return the mean number of held slots, and the number of slots."""
    if isnan(row["slot_use"]):
        return NOTHING
    return f"{row['slot_use'] * row['num_slots']:.0f} of {row['num_slots']:,.0f}"


def _imbalance(row: pd.Series[Any]) -> str:
    return NOTHING if isnan(row["imbalance"]) else f"{row['imbalance']:.2f}×"


def _capacity(comparison: ComparisonData, name: str) -> str:
    ends = comparison.intervals.to_dict()
    mean, low, high = (
        float(ends[end][name, "saturated_output_throughput"]) for end in ("mean", "low", "high")
    )
    half = (high - low) / 2  # a few replications support two digits of it
    if isnan(low) or half < _EXACT_SHARE * mean:
        return number(mean)
    if is_undecided(mean, low, high):
        return f"{number(mean)}\nundecided"
    return f"{number(mean)} ±{half:{',.0f' if half >= 10 else '.2g'}}"


def _gain(comparison: ComparisonData, name: str) -> str:
    gain = float(comparison.gain["over_static"][name])
    return NOTHING if isnan(gain) else f"{gain:.2f}×"


def gain_rows(comparison: ComparisonData) -> list[tuple[str, list[str]]]:
    """Return the gains with their 95 % intervals, one line per baseline."""
    names = {
        "over_static": f"gain over {comparison.static}",
        "over_best_static": f"gain over {comparison.best_static}",
    }
    return [
        (
            title,
            [
                ratio(*ends)
                for ends in comparison.gain[[name, f"{name}_low", f"{name}_high"]].to_numpy()
            ],
        )
        for name, title in names.items()
        if name in comparison.gain
    ]
