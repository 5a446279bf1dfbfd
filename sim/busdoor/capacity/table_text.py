"""A capacity study as rows of plain strings."""

from __future__ import annotations

from math import isinf, isnan
from typing import TYPE_CHECKING

from busdoor.capacity.data import CapacityData
from busdoor.capacity.estimate import STABLE
from busdoor.capacity.summary_text import misfits, rate_text
from busdoor.core.format import NOTHING, duration, number, percent

if TYPE_CHECKING:
    import pandas as pd


Rows = list[tuple[str, list[str]]]


def remarks(capacity: CapacityData, request_rate: float | None) -> list[tuple[str, str]]:
    """Return what has to be said of single policies: why a rate is 0 or unsure, and why a rate cannot be served."""
    own = [("refused", str(capacity.refused))] if capacity.refused.num else []
    own += [(answer.policy, str(answer.refused)) for answer in capacity.answers if answer.refused.num]
    own += [(str(policy), str(reason)) for policy, reason in capacity.table["reason"].items() if reason]
    if request_rate is None:
        return own
    return [*own, *misfits(capacity.table, capacity.plan(request_rate), request_rate).items()]


def spent(capacity: CapacityData) -> str:
    """Return what was simulated, and what was cut off the runs, in a line."""
    table = capacity.table
    cuts = table.loc[table["warmup_share"].notna(), ["warmup_share", "drain_share", "num_requests"]]
    measured = (
        f" Measured in a steady window: {_span(cuts['warmup_share'])} of each run cut as warm-up, "
        f"{_span(cuts['drain_share'])} as drain; up to {int(cuts['num_requests'].max()):,} requests per run."
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


def rate_rows(capacity: CapacityData) -> tuple[list[str], Rows]:
    """Return the columns and a row per policy; the lowest rates have a column if batches of any fill too slowly."""
    slow = bool((capacity.table["least"] > 0).any())
    meets = ["meets from", "to"] if slow else ["meets"]
    columns, rows = ["requests/s", *meets, "misses", "what binds", "of all it carries"], []
    for policy, row in capacity.table.iterrows():
        if not row["low"] > 0:
            rows.append((str(policy), ["0", *[NOTHING] * (4 + slow)]))
            continue
        share = percent(row["request_rate"] / row["saturated_request_rate"], 0)
        ends = [NOTHING if isinf(row[name]) else f"{row[name]:.3g}" for name in (*["least"] * slow, "low", "high")]
        rows.append((str(policy), [rate_text(row), *ends, _binds(capacity, row), share]))
    return columns, rows


def _binds(capacity: CapacityData, row: pd.Series[float]) -> str:
    key = str(row["binds"])
    if key in ("", STABLE):
        return "all that it carries" if key else NOTHING
    target = capacity.slo.target(key)
    value = percent(row["value"]) if key == "goodput" else duration(1e3 * row["value"])
    return target.name if isnan(row["value"]) else f"{target.name} {value}"


def plan_rows(capacity: CapacityData, request_rate: float) -> tuple[list[str], Rows]:
    """Return the columns and a row per policy of the plan for a rate."""
    plan = capacity.plan(request_rate)
    priced, slow = "cost_per_hour" in plan, bool((plan["may_fall"] < 1).any())
    columns = ["servers", "GPUs", "each", "headroom", *["may fall"] * slow]
    columns += ["cost/h", "cost/M output tokens"] if priced else []
    rows = []
    for policy, row in plan.iterrows():
        shares = [percent(row[name], 0) for name in ("headroom", *["may_fall"] * slow)]
        cells = [number(row["replicas"]), number(row["gpus"]), number(row["rate_per_replica"]), *shares]
        if priced:
            costs = row["cost_per_hour"], row["cost_per_million_output_tokens"]
            cells += [NOTHING if isnan(cost) else f"{cost:,.2f}" for cost in costs]
        rows.append((str(policy), cells))
    return columns, rows
