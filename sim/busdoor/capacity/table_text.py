"""A capacity study as rows of plain strings."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, isnan
from typing import Any

import pandas as pd

from busdoor.capacity.data import CapacityData, Drawable
from busdoor.capacity.summary_text import misfits, rate_text
from busdoor.comparison.bounds import TOLERANCE
from busdoor.core.format import NOTHING, duration, number, percent
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE

Rows = list[tuple[str, list[str]]]
_RATES = [
    "request_rate", "least", "low", "high", "value", "saturated_request_rate", "closed_form_rate",
]  # fmt: skip


def remarks(capacity: CapacityData, request_rate: float | None) -> list[tuple[str, str]]:
    """Return remarks on policies: why a rate is 0, uncertain, or cannot be served."""
    own = [("refused", str(capacity.refused))] if capacity.refused.num else []
    own += [
        (answer.policy, str(answer.refused)) for answer in capacity.answers if answer.refused.num
    ]
    own += [
        (str(policy), str(reason)) for policy, reason in capacity.table["reason"].items() if reason
    ]
    own += [
        (
            str(policy),
            f"its maximum throughput, {row['saturated_request_rate']:.3g} requests/s, is far "
            f"from its closed form, {row['closed_form_rate']:.3g}: one of them does not hold here",
        )
        for policy, row in capacity.table.iterrows()
        if abs(row["saturated_request_rate"] / row["closed_form_rate"] - 1) > TOLERANCE
    ]
    if request_rate is None:
        return own
    return [*own, *misfits(capacity.table, capacity.plan(request_rate), request_rate).items()]


def spent(capacity: CapacityData) -> str:
    """Return one line on what was simulated, and on what was cut off the runs."""
    table = capacity.table
    cuts = table.loc[table["warmup_share"].notna(), ["warmup_share", "drain_share", "num_requests"]]
    measured = (
        f" Measured in a steady window: {_span(cuts['warmup_share'])} of each run cut as warm-up, "
        f"{_span(cuts['drain_share'])} as drain; up to {int(cuts['num_requests'].max()):,} "
        f"requests per run."
        if len(cuts)
        else ""
    )
    draws = f"{capacity.replications} replication{'s' * (capacity.replications > 1)}"
    return (
        f"{capacity.num_runs:,} runs, {capacity.num_requests:,} requests; {draws} of seed "
        f"{capacity.config.seed}, the same for every rate and policy.{measured}"
    )


def _span(shares: pd.Series[float]) -> str:
    low, high = percent(float(shares.min()), 0), percent(float(shares.max()), 0)
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def rate_rows(study: Drawable) -> tuple[list[str], Rows]:
    """Return columns and a row per policy; the lowest rates have a column if any is above 0."""
    table = study.table.reindex(columns=[*_RATES, "binds"])  # folders of earlier versions lack some
    table[_RATES] = table[_RATES].astype(float)
    slow = bool((table["least"] > 0).any())
    meets = ["meets from", "to"] if slow else ["meets"]
    share_of = "% of maximum throughput (closed form)"
    columns, rows = ["requests/s", *meets, "misses", "binding limit", share_of], []
    for policy, row in table.iterrows():
        if not row["low"] > 0:
            rows.append((_title(policy), ["0", *[NOTHING] * (4 + slow)]))
            continue
        share = percent(row["request_rate"] / row["saturated_request_rate"], 0).removesuffix(" %")
        ends = [
            f"{row[name]:.3g}" if isfinite(row[name]) else NOTHING
            for name in (*["least"] * slow, "low", "high")
        ]
        if isfinite(row["closed_form_rate"]) and isfinite(row["saturated_request_rate"]):
            share += f"\nof {row['saturated_request_rate']:.3g} ({row['closed_form_rate']:.3g})"
        rows.append((_title(policy), [rate_text(row), *ends, _binds(study.slo, row), share]))
    return columns, rows


def _binds(slo: SLO, row: pd.Series[Any]) -> str:
    key = str(row["binds"])
    if key in ("", STABLE):
        return key or NOTHING
    target = slo.target(key)
    value = percent(row["value"]) if target.is_goodput else duration(1e3 * row["value"])
    return target.name if isnan(row["value"]) else f"{target.name}\n{value}"


def plan_rows(capacity: CapacityData, request_rate: float) -> tuple[list[str], Rows]:
    """Return the columns and a row per policy of the plan for a rate."""
    (first, *others), rows = sizing_rows(capacity.plan(request_rate))
    return ["clusters" if capacity.config.cluster else first, *others], rows


def sizing_rows(plan: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return columns and a row per policy of a plan; `may_fall` only where it is limited."""
    names = [
        name for name in _PLAN if name in plan and (name != "may_fall" or (plan[name] < 1).any())
    ]
    if "cost_per_hour" not in names:
        names = [name for name in names if name != "kwh_per_million_output_tokens"]
    rows = [
        (_title(policy), [_PLAN[name][1](row[name]) for name in names])
        for policy, row in plan.iterrows()
    ]
    return [_PLAN[name][0] for name in names], rows


def bill_rows(bill: pd.DataFrame) -> Rows:
    """Return what a day costs, a column per policy; without a price there is no line for it."""
    lines = {
        "gpu_hours": ("GPU-hours", number),
        "fixed_gpu_hours": ("at the peak's number", number),
        "cost_per_day": ("cost", _cost),
    }
    return [
        (title, [written(value) for value in bill[key]])
        for key, (title, written) in lines.items()
        if key in bill
    ]


def _title(policy: object) -> str:
    """Return a row's title, broken before parentheses so that 80 columns hold the table."""
    return str(policy).replace(" (", "\n(")


def _whole_percent(share: float) -> str:
    return percent(share, 0)


def _cost(value: float) -> str:
    return NOTHING if isnan(value) else f"{value:,.2f}"


# What each column of a plan is called, and how its values are written.
_PLAN: dict[str, tuple[str, Callable[[float], str]]] = {
    "replicas": ("servers", number),
    "gpus": ("GPUs", number),
    "rate_per_replica": ("requests/s each", number),
    "headroom": ("headroom", _whole_percent),
    "may_fall": ("may fall by", _whole_percent),
    "cost_per_hour": ("cost/h", _cost),
    "cost_per_million_output_tokens": ("cost/M output tokens", _cost),
    "kwh_per_million_output_tokens": ("kWh/M output tokens", _cost),
}
