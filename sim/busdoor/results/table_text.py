"""A result as rows of plain strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from busdoor.core.format import LATENCIES, duration, number, percent
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import Target
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares

if TYPE_CHECKING:
    import pandas as pd


def summary_rows(summary: pd.Series[Any]) -> list[tuple[str, str]]:
    """Return the lines of a run's summary."""
    rows = [
        (
            "requests answered",
            f"{summary['completed']:,} of {summary['completed'] + summary['failed']:,}",
        ),
        ("duration", duration(summary["duration"] * 1e3)),
        ("requests/s", number(summary["request_throughput"])),
        ("output tokens/s", number(summary["output_throughput"])),
    ]
    for short, key in {**LATENCIES, "ITL": "itl"}.items():
        values = [summary[f"{kind}_{key}_ms"] for kind in ("median", "p90", "p99")]
        rows.append((f"{short} p50, p90, p99", "  ".join(map(duration, values))))
    shares = {
        "slot_use": "slots held",
        "bubble_share": "idle slot time",
        "padding_share": "padding computed",
        "kv_wasted_share": "KV memory wasted",
    }
    rows += [(title, percent(summary[key])) for key, title in shares.items()]
    rows.append(("preemptions", f"{summary['num_preemptions']:,}"))
    return rows


def refusals(requests: pd.DataFrame) -> dict[str, int]:
    """Return the number of refused requests by reason; those that differ in a number are one."""
    status = requests["status"]
    reasons = status[status.str.startswith("refused")].str.removeprefix("refused: ")
    groups = reasons.groupby(reasons.map(lambda reason: re.sub(r"\d+", "", reason, count=1)))
    return {str(group.iloc[0]): len(group) for _, group in groups}


def what_ran(meta: Mapping[str, Any]) -> str:
    """Return one line on which policy ran on what; a calibration stands for GPU and model.

    >>> meta = {"gpu": "h100", "model": "llama-3.1-8b", "step_time": {"name": "roofline"}}
    >>> what_ran({"policy": "vllm", **meta})
    'Policy vllm; GPU h100; model llama-3.1-8b; step time roofline.'
    """
    step_time = meta.get("step_time") or {}
    calibration = step_time.get("calibration")
    parts = {
        "Policy": meta.get("policy"),
        "GPU": None if calibration else meta.get("gpu"),
        "model": None if calibration else meta.get("model"),
        "step time": f"{calibration} (calibrated)" if calibration else step_time.get("name"),
        "engine": meta.get("engine"),
        "lookahead": meta.get("lookahead"),
    }
    said = [f"{title} {value}" for title, value in parts.items() if value is not None]
    if "engine" in meta and "; " in meta.get("prediction", ""):
        said.append(meta["prediction"].rpartition("; ")[2])
    return "; ".join(said) + "."


def slo_rows(result: Result, slo: SLO | None) -> list[tuple[str, str]]:
    """Return rows of the SLO, if any: the share within each limit, and whether all are met."""
    if not slo:
        return []
    shares = slo_shares(result, slo)
    rows = [(str(target), _reached(target, shares[f"slo_{target.key}"])) for target in slo.targets]
    return [*rows, ("SLO met", "yes" if shares["slo_met"] else "no")]


def _reached(target: Target, share: float) -> str:
    return percent(share) if target.share is not None else "yes" if share else "no"
