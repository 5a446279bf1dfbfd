"""The machines measured for this repository: terms, shapes, errors, and sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import busdoor
from busdoor.calibration import Calibration, load_measured
from busdoor.calibration.fit import HOST_BOUND
from busdoor.calibration.teacher_forcing import batches_of
from busdoor.results.result import Result
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.terms import TERM
from busdoor.validation.run import RunValidation
from busdoor.validation.twin_folder import Twin, find_twins
from busdoor.validation.validation import Validation
from lessons.followed import followed

__all__ = [
    "e2e_ratio",
    "errors",
    "followed",
    "latency",
    "measured_twin",
    "measured_twins",
    "missed_bars",
    "scoreboard",
    "shapes",
    "terms",
    "vllm_runs",
]

_ROOT = Path(busdoor.__file__).resolve().parents[2]
RESULTS = _ROOT / "gpu" / "results"


def measured_twins() -> list[Twin]:
    """Find the twins that this repository keeps.

    Raises
    ------
    ValueError
        Where busdoor is installed without its repository.
    """
    twins = find_twins(RESULTS)
    if not twins:
        raise ValueError(
            "the measured runs are in the repository's gpu/results; work in a clone of it"
        )
    return twins


def measured_twin(name: str) -> Twin:
    """Find the twin of a name.

    Examples
    --------
    >>> measured_twin("h100-llama-3.1-8b").calibration.about["gpu"]
    'NVIDIA H100 80GB HBM3'
    """
    return next(twin for twin in measured_twins() if twin.name == name)


def vllm_runs() -> dict[str, Result]:
    """Return logs of real vLLM on a CPU by rate (requests/s); see tests/measured/README.md."""
    rates = (4, 12, 20)
    return {
        f"rate_{rate}": load_measured(_ROOT / f"tests/measured/vllm_cpu/rate_{rate}.json.gz")
        for rate in rates
    }


def terms(calibration: Calibration) -> pd.DataFrame:
    """Return a calibration's terms in µs with 95 % intervals; per_token_s by segment.

    Returns
    -------
    DataFrame
        What a term is for, and its numbers to four figures, as text.

    Examples
    --------
    >>> terms(Calibration.load("vllm-cpu")).columns.tolist()
    ['what for', 'time_µs', 'low_µs', 'high_µs']
    """
    rows: dict[str, list[str]] = {}
    for term, value in calibration.step_time.describe().items():
        interval = calibration.intervals.get(term)
        if isinstance(value, list) and interval:
            starts = [0, *calibration.step_time.token_breaks]
            rows |= {
                f"{term}, beyond {start}": [_meaning(term), *map(_microseconds, (own, *ends))]
                for start, own, ends in zip(starts, value, interval, strict=True)
            }
        elif interval:
            rows[term] = [_meaning(term), *map(_microseconds, (value, *interval))]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["what for", "time_µs", "low_µs", "high_µs"]
    )


def _meaning(term: str) -> str:
    own = TERM[term]
    return f"host: {own.meaning}" if own.part == "host" else own.meaning


def _microseconds(seconds: float) -> str:
    return np.format_float_positional(1e6 * seconds, precision=4, fractional=False, trim="-")


def shapes(profile: Result, step_time: CalibratedStepTime) -> pd.DataFrame:
    """Return a row per shape: what it computes; device and host time, measured and fitted.

    Returns
    -------
    DataFrame
        Times are medians in ms. `starved`: the device waited for the host, so the fit does not take
        its time.

    Examples
    --------
    >>> twin = measured_twin("h100-llama-3.1-8b")
    >>> first = shapes(twin.profile, twin.calibration.step_time).iloc[0]
    >>> f'{first["device_ms"]:.1f} {first["device_fit_ms"]:.1f}'                # one decode with a context of 16
    '6.3 6.4'
    """
    table, batches = profile.iterations, batches_of(profile)
    table = table.assign(
        device_fit_s=[step_time.device_line(batch)[0] for batch in batches],
        host_fit_s=[step_time.host_of(batch) for batch in batches],
        chunks=[len(batch.chunks) for batch in batches],
    )
    cells = table.groupby("cell")
    work = {"decodes": "num_decode_tokens", "context": "context_tokens", "chunks": "chunks",
            "prefill_tokens": "num_prefill_tokens", "prior_tokens": "prefill_context_tokens"}  # fmt: skip
    seconds = {
        f"{own}_ms": 1e3 * cells[f"{own}_s"].median()
        for own in ("device", "device_fit", "host", "host_fit")
    }
    medians = pd.DataFrame({name: cells[column].first() for name, column in work.items()} | seconds)
    medians["prior_tokens"] -= medians["prefill_tokens"]
    medians["starved"] = (medians["chunks"] > 0) & (
        medians["host_ms"] > HOST_BOUND * 1e3 * cells["duration_s"].median()
    )
    return medians.reset_index(drop=True)


def errors(validation: Validation) -> pd.DataFrame:
    """Return a row for each run: its load, and the errors of the main quantities in per cent."""
    wanted = {
        "step_each_%": "step_mean_absolute",
        "step_all_%": "step_total",
        "ttft_mean_%": "ttft_mean",
        "tpot_mean_%": "tpot_mean",
        "e2e_mean_%": "e2e_mean",
        "e2e_p99_%": "e2e_p99",
        "output_rate_%": "output_rate",
    }
    rows = {
        run.name: {"load": run.load}
        | {title: 100 * run.errors[key] for title, key in wanted.items()}
        for run in validation.runs
    }
    return pd.DataFrame.from_dict(rows, orient="index").replace({np.nan: None})


def latency(run: RunValidation, name: str) -> pd.DataFrame:
    """Return a latency of a run by statistic, in seconds; its error and interval in per cent.

    Examples
    --------
    >>> from busdoor.validation.validate import validate
    >>> twin = measured_twin("h100-llama-3.1-8b")
    >>> code = validate([twin.runs["azure-code-0.70"]], twin.calibration.step_time, ["azure-code-0.70"])
    >>> latency(code.runs[0], "ttft").columns.tolist()
    ['measured_s', 'simulated_s', 'error_%', 'low_%', 'high_%', 'n']
    """
    own = run.table.loc[name]
    seconds = own[["measured", "simulated"]].add_suffix("_s")
    return seconds.join(100 * own[["error", "low", "high"]].add_suffix("_%")).join(own["n"])


def e2e_ratio(validation: Validation) -> pd.DataFrame:
    """Return the E2E ratio of each pair of runs, its error in per cent."""
    table = validation.e2e_ratio
    named = table.rename(columns={side: f"{side}_ratio" for side in ("measured", "simulated")})
    return named.drop(columns="error").assign(**{"error_%": 100 * table["error"]})


def missed_bars(validation: Validation) -> pd.DataFrame:
    """Return the bars that are missed: the run, errors in per cent, seconds for a latency.

    Examples
    --------
    >>> from busdoor.validation.validate import validate
    >>> twin = measured_twin("h100-llama-3.1-8b")
    >>> code = validate([twin.runs["azure-code-0.70"]], twin.calibration.step_time, ["azure-code-0.70"])
    >>> missed_bars(code)["quantity"].tolist()
    ['step_mean_absolute', 'tpot_mean', 'itl_mean']
    """
    bars = validation.bars[validation.bars["met"].eq(False)].reset_index(drop=True)
    runs = {run.name: run for run in validation.runs}
    rows = [
        _behind(runs.get(name), quantity)
        for name, quantity in zip(bars["run"], bars["quantity"], strict=True)
    ]
    percent = pd.DataFrame({f"{key}_%": 100 * bars[key] for key in ("error", "bar")})
    kept = bars.drop(columns=["met", "within", "error", "bar"])
    return kept.join(percent).join(pd.DataFrame(rows, index=bars.index))


def _behind(run: RunValidation | None, quantity: str) -> dict[str, float]:
    """Return what an error is of, as far as it is the latency of one run."""
    key = tuple(quantity.split("_", 1))
    if run is None or key not in run.table.index:
        return {"measured_s": np.nan, "simulated_s": np.nan, "requests": np.nan}
    seconds = {f"{side}_s": float(run.table[side][key]) for side in ("measured", "simulated")}
    return {**seconds, "requests": len(run.measured.requests)}


def scoreboard(validations: dict[str, Validation]) -> pd.DataFrame:
    """Return per twin the bars met, and largest errors (per cent) of runs below load 0.8."""
    rows = {}
    for name, validation in validations.items():
        bars = validation.bars
        judged, calm = bars[bars["met"].notna()], bars[bars["regime"].isin(["ρ < 0.5", "0.5–0.8"])]
        worst = calm.groupby("quantity")["error"].agg(lambda own: 100 * own.abs().max())
        rows[name] = {
            "bars met": f"{int(judged['met'].sum())} of {len(judged)}",
            **worst.round(1).add_suffix("_%"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
