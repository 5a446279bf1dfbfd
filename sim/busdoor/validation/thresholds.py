"""How good a simulation must be: bars, runs that meet them, what is to blame if not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from typing import Any

import pandas as pd

from busdoor.core.format import as_percent
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import REGIMES, regime
from busdoor.validation.knee import runs_alike
from busdoor.validation.run import RunValidation

# Largest relative errors on a GPU, by quantity; source: issue 4, "Bars".
THRESHOLDS: Mapping[str, float] = {
    "step_mean_absolute": 0.05,
    "step_total": 0.015,
    "e2e_mean": 0.03,
    "e2e_p99": 0.06,
    "tpot_mean": 0.03,
    "itl_mean": 0.03,
    "ttft_mean": 0.06,
    "ttft_p99": 0.12,
    "knee": 0.05,
    "gain": 0.03,
    "e2e_ratio": 0.03,  # the same bar: for pairs that have no gain
}
# issue 4: above it queueing multiplies errors, which are then reported with their amplification
BELOW_LOAD = 0.8
CPU_FACTOR = 2.0  # issue 4: "on the CPU backend ... aim at double"
_OF_PAIRS = ("knee", "gain", "e2e_ratio")
_OF_RUNS = (
    *(quantity for quantity in THRESHOLDS if quantity not in _OF_PAIRS),
    "output_rate",
)  # the last has none
TITLES: Mapping[str, str] = {
    "step_mean_absolute": "step time, each",
    "step_total": "step time, in all",
    "output_rate": "output tokens/s",
}
COLUMNS = ("quantity", "regime", "error", "bar", "met", "run", "within")
_CPU_CLOCKS = ("cpu", "paced")  # of `busdoor replay`: seconds of the processor
_PARTS: Mapping[str, str] = {
    "scheduling": "the scheduler",
    "step_model": "the step-time model",
    "host": "the host's time",
    "feedback": "what queueing makes of the rest",
}
_ALSO = 0.5  # of the largest part: what is as large is named beside it


def threshold_table(validation: ValidationData) -> pd.DataFrame:
    """Compare a validation with the thresholds: a row for each quantity and load regime.

    `error`: the largest of the regime's runs, with its sign; `run`: whose it is; `bar`: the largest
    error allowed; `met`: whether it is within it, None where no threshold applies: from ρ = 0.8 on,
    and to runs that the calibration was fitted to; `within`: the same, but at any load. The knee
    and gains are of no regime: theirs is "all" and "saturated".
    """
    rows = [row for quantity in _OF_RUNS for row in _of_runs(validation, quantity)]
    return pd.DataFrame(
        [*rows, *_knee(validation), *_gains(validation), *_e2e_ratios(validation)],
        columns=list(COLUMNS),
    )


def title(quantity: str) -> str:
    """Return a quantity in words.

    >>> title("e2e_p99"), title("step_total"), title("gain")
    ('E2E p99', 'step time, in all', 'gain')
    """
    latency, _, statistic = quantity.partition("_")
    return TITLES.get(quantity, f"{latency.upper()} {statistic}" if statistic else quantity)


def on_cpu(meta: Mapping[str, Any]) -> bool:
    """Whether a run was measured on a processor, whose bars are double.

    >>> on_cpu({"gpu": "cpu, 1 thread"}), on_cpu({"device": {"name": "x86_64", "threads": 1}}), on_cpu({"gpu": "H100"})
    (True, True, False)
    """
    clock = (meta.get("step_time") or {}).get("clock")
    named = str(meta.get("gpu", "")).lower().startswith("cpu")
    return clock in _CPU_CLOCKS or "threads" in (meta.get("device") or {}) or named


def blame(run: RunValidation) -> str:
    """Return the largest part of the mean E2E latency's error, and what is about as large.

    Like "the step-time model (+8.6 %)"; empty where nothing is known.
    """
    parts = run.budget.drop("total").dropna().sort_values(key=lambda values: -values.abs())
    if not len(parts):
        return ""
    large = parts[parts.abs() >= _ALSO * abs(parts.iloc[0])]
    return " and ".join(
        f"{_PARTS[str(name)]} ({as_percent(value)})" for name, value in large.items()
    )


def missed(validation: ValidationData) -> dict[str, list[str]]:
    """Return the quantities whose bar an unseen run misses, at any load, in words, by run."""
    found = {
        run.name: [
            title(key)
            for key in THRESHOLDS
            if key in run.errors
            and run.name not in validation.fitted_to
            and abs(run.errors[key]) > _threshold(validation, key, [run])
        ]
        for run in validation.runs
    }
    return {name: quantities for name, quantities in found.items() if quantities}


def _of_runs(validation: ValidationData, quantity: str) -> Iterator[dict[str, Any]]:
    for _, name in REGIMES:
        runs = [
            run for run in validation.runs if run.regime == name and isfinite(run.errors[quantity])
        ]
        fresh = [run for run in runs if run.name not in validation.fitted_to]
        if runs:
            worst = max(
                fresh or runs, key=lambda run: abs(run.errors[quantity]) / factor(validation, [run])
            )
            limit = _threshold(validation, quantity, [worst])
            calm = worst.load < BELOW_LOAD
            yield _row(quantity, name, worst.errors[quantity], limit, worst.name, bool(fresh), calm)


def _knee(validation: ValidationData) -> Iterator[dict[str, Any]]:
    error = validation.knee["error"]
    if isfinite(error):
        names = " / ".join(run.name for run in runs_alike(validation.runs))
        fresh = not any(run.name in validation.fitted_to for run in validation.runs)
        yield _row(
            "knee", "all", error, _threshold(validation, "knee", validation.runs), names, fresh
        )


def _gains(validation: ValidationData) -> Iterator[dict[str, Any]]:
    for row in validation.gain.to_dict("records"):
        yield _pair_row(validation, "gain", row, "saturated", binds=True)


def _e2e_ratios(validation: ValidationData) -> Iterator[dict[str, Any]]:
    for row in validation.e2e_ratio.to_dict("records"):
        calm = row["load"] < BELOW_LOAD
        yield _pair_row(validation, "e2e_ratio", row, regime(row["load"]), binds=calm)


def _pair_row(
    validation: ValidationData, quantity: str, row: Mapping[Any, Any], where: str, *, binds: bool
) -> dict[str, Any]:
    names = row["continuous"], row["static"]
    pair = [run for run in validation.runs if run.name in names]
    fresh = not any(run.name in validation.fitted_to for run in pair)
    limit = _threshold(validation, quantity, pair)
    return _row(quantity, where, row["error"], limit, " / ".join(names), fresh, binds)


def _row(
    quantity: str, where: str, error: float, limit: float, run: str, fresh: bool, binds: bool = True
) -> dict[str, Any]:
    """Return a row; bars are for `fresh` runs, and bind where the load is low enough."""
    within = bool(abs(error) <= limit) if fresh and isfinite(limit) else None
    met = within if binds else None
    return dict(zip(COLUMNS, (quantity, where, error, limit, met, run, within), strict=True))


def _threshold(validation: ValidationData, quantity: str, runs: Sequence[RunValidation]) -> float:
    return THRESHOLDS.get(quantity, nan) * factor(validation, runs)


def factor(validation: ValidationData, runs: Sequence[RunValidation]) -> float:
    """How much more these runs may err; without a device in their meta, it is the calibration's."""
    metas = (run.measured.meta for run in runs)
    cpu = all(
        on_cpu({**meta, "gpu": meta.get("gpu") or validation.about.get("gpu")}) for meta in metas
    )
    return CPU_FACTOR if cpu else 1.0
