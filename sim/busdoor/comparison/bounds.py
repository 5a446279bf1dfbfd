"""Every simulated number beside its closed form: floors that must hold, and approximations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import pandas as pd

from busdoor.comparison.sources import throughput_sds
from busdoor.config import Config, PolicyTable
from busdoor.config.limits import Limits
from busdoor.config.run import carried_rps
from busdoor.core.format import NOTHING, duration, number
from busdoor.theory.at_load import (
    batched_latency_s,
    decode_step_s,
    lone_latency_s,
    shared_latency_s,
)
from busdoor.validation.data import ValidationData
from busdoor_workloads import Trace

FLOOR, NEAR = "at least", "about"
_ROUNDING = 1e-6  # a floor that is reached exactly is no violation
# of an approximation: what `theory.capacity` and `shared_latency_s` come to where memory decides, or
# near saturation (docs/uncertainty.md has the measurements)
TOLERANCE = 0.25
# Of its capacity: beyond it a finite run is still filling its queue, and no mean to hold one against.
SETTLED = 0.9
BOUNDS = "First replication: floors that no schedule passes, and approximations."
HEADS = ("simulated", "closed form", "")
BESIDE = "Beside closed forms (first replication; ! where one does not hold):"
BESIDE_HEADS = ("TPOT p50", "floor", "E2E mean", "form", "saturated/s", "form")


class Form(NamedTuple):
    """A closed form: what it is of, a floor or an approximation, its value, and how it is written."""

    quantity: str
    metric: str
    kind: str
    scale: float = 1.0


FORMS: Mapping[str, Form] = {
    "step_floor_s": Form("TPOT p50 ≥ a lone decode", "median_tpot_ms", FLOOR, 1e3),
    "lone_e2e_s": Form("mean E2E ≥ lone requests", "mean_e2el_ms", FLOOR, 1e3),
    "shared_e2e_s": Form("mean E2E, processor sharing", "mean_e2el_ms", NEAR, 1e3),
    "batched_e2e_s": Form("mean E2E, batch queue", "mean_e2el_ms", NEAR, 1e3),
    "saturated_rps": Form("saturated requests/s", "saturated_request_throughput", NEAR),
}


# of the saturated rate: what calibration and model leave open, relative standard deviations
SDS = ("calibration_sd", "model_sd")


def closed_forms(
    config: Config,
    policy: PolicyTable,
    trace: Trace,
    limits: Limits,
    validation: ValidationData | None = None,
) -> dict[str, float]:
    """Return the closed forms of one server that serves a trace; NaN where none is known.

    The latencies are those at the trace's rate: processor sharing for policies that admit at every
    iteration, the batch queue for static batches that leave only full. Both are of a steady state:
    there are none beyond `SETTLED` of the capacity, nor for a run shorter than its relaxation time,
    latency / (1 - ρ). Whole batches that the requests do not fill have no saturated rate.
    """
    rate = trace.request_rate
    if trace.concurrency or not isfinite(rate) or config.cluster is not None:
        return dict.fromkeys((*FORMS, *SDS), nan)
    own = policy.capped(limits.max_output_tokens).build(limits.kv, trace)
    step_time, lengths = config.step_time, (trace.input_tokens, trace.output_tokens)
    capacity = carried_rps(config, policy, trace, limits)
    cached = bool(getattr(policy.config, "prefix_caching", False))
    forms = {
        "step_floor_s": decode_step_s(step_time, 1, 0.0),
        "lone_e2e_s": lone_latency_s(step_time, *lengths, prompts=not cached),
        "saturated_rps": capacity,
        "shared_e2e_s": nan,
        "batched_e2e_s": nan,
    }
    sds = throughput_sds(
        config, lambda other: carried_rps(other, policy, trace, limits), validation
    )
    forms |= dict(zip(SDS, sds, strict=True))
    if own.whole_batch and len(trace) < own.num_slots:
        forms["saturated_rps"] = nan
    if not rate < SETTLED * capacity:
        return forms
    if not own.whole_batch:
        forms["shared_e2e_s"] = shared_latency_s(step_time, *lengths, rate, own.num_slots)
    elif policy.name == "static" and getattr(policy.config, "max_wait_s", 0.0) == inf:
        found = batched_latency_s(lengths[1], rate, own.num_slots, capacity)
        forms["batched_e2e_s"] = found if not own.streams else nan
    for key in ("shared_e2e_s", "batched_e2e_s"):
        if len(trace) / rate * (1 - rate / capacity) < forms[key]:
            forms[key] = nan
    return forms


def bounds_table(forms: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """Return simulated figures beside their `closed_forms`, by policy and form.

    `simulated`, `closed_form`, `kind`, `error` (relative) and `violated`: a floor that is passed, or an
    approximation that is off by more than `TOLERANCE`.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    known: dict[Any, Any] = forms.to_dict("index")
    figures: dict[Any, Any] = simulated.to_dict("index")
    for policy, own in known.items():
        for key, form in FORMS.items():
            value, seen = form.scale * own[key], float(figures[policy][form.metric])
            if isfinite(value) and isfinite(seen):
                error = seen / value - 1
                far = error < -_ROUNDING if form.kind == FLOOR else abs(error) > TOLERANCE
                rows[str(policy), key] = {
                    "simulated": seen,
                    "closed_form": value,
                    "kind": form.kind,
                    "error": error,
                    "violated": bool(far),
                }
    columns = ["simulated", "closed_form", "kind", "error", "violated"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    index = list(rows) or [("", "")]
    frame.index = pd.MultiIndex.from_tuples(index, names=["policy", "form"])[: len(rows)]
    return frame


def bound_rows(bounds: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return a row per closed form: simulated, closed form, and what became of it."""
    rows = []
    known: dict[Any, Any] = bounds.to_dict("index")
    for (policy, key), row in known.items():
        form = FORMS[key]
        simulated, value = _written(key, row)
        ends = [simulated, f"{form.kind} {value}"]
        rows.append((f"{policy}: {form.quantity}", [*ends, _said(row)]))
    return rows


def beside(bounds: pd.DataFrame, policies: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return a row per policy: each simulated figure and its closed form, as `BESIDE_HEADS`."""
    known: dict[Any, Any] = bounds.to_dict("index")
    rows = []
    for policy in policies:
        found = [[key for key in keys if (policy, key) in known] for keys in _BESIDE]
        pairs = [_pair(keys[0], known[policy, keys[0]]) if keys else _NEITHER for keys in found]
        rows.append((policy, [cell for pair in pairs for cell in pair]))
    return rows


_BESIDE = (("step_floor_s",), ("shared_e2e_s", "batched_e2e_s"), ("saturated_rps",))
_NEITHER = (NOTHING, NOTHING)


def _pair(key: str, row: Mapping[str, Any]) -> tuple[str, str]:
    simulated, form = _written(key, row)
    return simulated, f"{form}{' !' * row['violated']}"


def _written(key: str, row: Mapping[str, Any]) -> tuple[str, str]:
    write = duration if FORMS[key].metric.endswith("_ms") else number
    return write(row["simulated"]), write(row["closed_form"])


def violations(bounds: pd.DataFrame) -> list[str]:
    """Return a sentence for each figure that its closed form contradicts."""
    known: dict[Any, Any] = bounds[bounds["violated"].astype(bool)].to_dict("index")
    return [_contradiction(policy, key, row) for (policy, key), row in known.items()]


def _contradiction(policy: str, key: str, row: Mapping[str, Any]) -> str:
    simulated, form = _written(key, row)
    said = f"{policy}: {FORMS[key].quantity}: {simulated} simulated, {row['kind']} {form} by theory"
    if row["kind"] == FLOOR:
        return f"{said}: no schedule passes this floor, so do not trust this run"
    return f"{said}: this approximation does not hold here"


def _said(row: Mapping[str, Any]) -> str:
    if row["violated"]:
        return f"VIOLATED: {100 * row['error']:+.0f} %"
    return NOTHING if row["kind"] == FLOOR else f"{100 * row['error']:+.1f} %"
