"""What `busdoor capacity` shows in the terminal."""

from __future__ import annotations

from math import isinf, isnan
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from busdoor.capacity.estimate import STABLE
from busdoor.capacity.summary_text import misfits, rate_text
from busdoor.core.format import NOTHING, duration, number, percent

if TYPE_CHECKING:
    import pandas as pd

    from busdoor.capacity import Capacity


def remarks(capacity: Capacity, request_rate: float | None) -> list[tuple[str, str]]:
    """Return what has to be said of single policies: why a rate is 0 or unsure, and why a rate cannot be served."""
    own = [("refused", str(capacity.refused))] if capacity.refused.num else []
    own += [(answer.policy, str(answer.refused)) for answer in capacity.answers if answer.refused.num]
    own += [(str(policy), str(reason)) for policy, reason in capacity.table["reason"].items() if reason]
    if request_rate is None:
        return own
    return [*own, *misfits(capacity.table, capacity.plan(request_rate), request_rate).items()]


def spent(capacity: Capacity) -> str:
    """Say what was simulated, and what was cut off the runs."""
    table = capacity.table
    cuts = table.loc[table["warmup_share"].notna(), ["warmup_share", "drain_share", "num_requests"]]
    measured = (
        f" Measured in a steady window: {_span(cuts['warmup_share'])} of each run cut as warm-up, "
        f"{_span(cuts['drain_share'])} as drain; up to {int(cuts['num_requests'].max()):,} requests a run."
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


def _rates(capacity: Capacity) -> Table:
    """Return a row a policy; the lowest rates have a column if batches of any fill too slowly."""
    slow = bool((capacity.table["least"] > 0).any())
    table = _table(
        "", "requests/s", *(["meets from", "to"] if slow else ["meets"]), "misses", "what binds", "of all it carries"
    )
    for policy, row in capacity.table.iterrows():
        if not row["low"] > 0:
            table.add_row(escape(str(policy)), "0", *[NOTHING] * (4 + slow))
            continue
        share = percent(row["request_rate"] / row["saturated_request_rate"], 0)
        ends = [NOTHING if isinf(row[name]) else f"{row[name]:.3g}" for name in (*["least"] * slow, "low", "high")]
        table.add_row(escape(str(policy)), rate_text(row), *ends, _binds(capacity, row), share)
    return table


def _binds(capacity: Capacity, row: pd.Series[float]) -> str:
    key = str(row["binds"])
    if key in ("", STABLE):
        return "all that it carries" if key else NOTHING
    target = capacity.slo.target(key)
    value = percent(row["value"]) if key == "goodput" else duration(1e3 * row["value"])
    return target.name if isnan(row["value"]) else f"{target.name} {value}"


def _plan(capacity: Capacity, request_rate: float) -> Table:
    plan = capacity.plan(request_rate)
    priced, slow = "cost_per_hour" in plan, bool((plan["may_fall"] < 1).any())
    columns = ["servers", "GPUs", "each", "headroom", *["may fall"] * slow]
    table = _table("", *columns, *(["cost/h", "cost/M output tokens"] if priced else []))
    for policy, row in plan.iterrows():
        shares = [percent(row[name], 0) for name in ("headroom", *["may_fall"] * slow)]
        cells = [number(row["replicas"]), number(row["gpus"]), number(row["rate_per_replica"]), *shares]
        if priced:
            costs = row["cost_per_hour"], row["cost_per_million_output_tokens"]
            cells += [NOTHING if isnan(cost) else f"{cost:,.2f}" for cost in costs]
        table.add_row(escape(str(policy)), *cells)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(escape(column.replace(" (", "\n(")), justify="right" if column else "left")
    return table
