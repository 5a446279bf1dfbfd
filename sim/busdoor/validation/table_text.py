"""What `busdoor validate` shows in the terminal, and its report on a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from busdoor.core.format import as_percent, as_share
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import LATENCIES, REGIMES, STATISTICS
from busdoor.validation.gain import e2e_ratio_interval
from busdoor.validation.run import RunValidation
from busdoor.validation.thresholds import blame, missed, threshold_table, title

if TYPE_CHECKING:
    import pandas as pd


Rows = list[tuple[str, list[str]]]
BRIEF_HEAD = "run\n(steps; requests)"
NAME_COLUMNS = 17
TRANSIENT = "t"  # after a load, and after an error
_PARTS = ("scheduling", "step_model", "host", "feedback")

# What the terminal has of each run: a heading, and what is under it. The page has everything.
BRIEFLY: Sequence[tuple[str, Callable[[RunValidation], str]]] = (
    ("load\nρ", lambda run: _load(run)),
    ("steps\neach", lambda run: _points(run.steps.mean_absolute).lstrip("+")),
    ("steps\nall", lambda run: _points(run.steps.total)),
    ("TTFT\nmean", lambda run: _points(run.table["error"]["ttft", "mean"])),
    ("TTFT\np99", lambda run: _points(run.table["error"]["ttft", "p99"])),
    ("TPOT\nmean", lambda run: _points(run.table["error"]["tpot", "mean"])),
    ("E2E\nmean", lambda run: _points(run.table["error"]["e2e", "mean"])),
    ("E2E\np99", lambda run: _points(run.table["error"]["e2e", "p99"])),
    ("tokens\nper s", lambda run: _points(run.table["error"]["output", "rate"])),
)


def _load(run: RunValidation) -> str:
    """Write a run's load, with a mark on a transient."""
    return "burst" if isnan(run.load) else f"{run.load:.2f}" + f" {TRANSIENT}" * bool(run.transient)


def _points(error: float) -> str:
    """Write a relative error in per cent, without the sign of per cent."""
    return "–" if isnan(error) else f"{100 * error:+.1f}"


def brief_rows(runs: Sequence[RunValidation]) -> Rows:
    """Return a row per run: the errors of `BRIEFLY`, and the steps and requests they are over."""
    return [
        (f"{_folded(run.name)}\n{_counts(run)}", [cell(run) for _, cell in BRIEFLY]) for run in runs
    ]


def _counts(run: RunValidation) -> str:
    steps = f"{run.num_iterations:,}" if run.num_iterations else "–"
    return f"({steps}; {run.num_requests:,})"


def _folded(name: str) -> str:
    """Break a long name after hyphens, so that the table fits a terminal of 80 columns."""
    lines = [""]
    for part in name.replace("-", "-\n").split("\n"):
        if len(lines[-1]) + len(part) > NAME_COLUMNS:
            lines.append("")
        lines[-1] += part
    return "\n".join(filter(None, lines))


def run_rows(runs: Sequence[RunValidation], detailed: bool = False) -> Rows:
    """Return the errors of runs, a cell each; `detailed` puts milliseconds and intervals below."""

    def errors(text: str, key: str) -> tuple[str, list[str]]:
        write = as_share if key == "step_mean_absolute" else as_percent
        cells = [write(run.errors[key]) for run in runs]
        if detailed:
            cells = [
                "\n".join([cell, *_details(run, key)])
                for cell, run in zip(cells, runs, strict=True)
            ]
        return text, cells

    rows = [
        ("load ρ", [_load(run) for run in runs]),
        (
            "queueing multiplies by",
            [f"{run.amplification:.1f}" if run.load < 1 else "–" for run in runs],
        ),
        ("requests", [f"{run.num_requests:,}" for run in runs]),
        ("iterations", [f"{run.num_iterations:,}" if run.num_iterations else "–" for run in runs]),
        ("batch, mean (largest)", [_batch(run) for run in runs]),
        errors("step time, each", "step_mean_absolute"),
        errors("step time, in all", "step_total"),
        ("host, launching a step", [_launch(run) for run in runs]),
        ("batches alike, measured durations", [as_share(run.agreement["played"]) for run in runs]),
        ("batch sizes alike, closed loop", [as_share(run.agreement["overlap"]) for run in runs]),
    ]
    rows += [
        errors(f"{latency.upper()} {statistic}", f"{latency}_{statistic}")
        for latency in LATENCIES
        for statistic in STATISTICS
    ]
    rows.append(errors("output tokens/s", "output_rate"))
    return rows + [
        (f"of E2E mean: {part.replace('_', ' ')}", [as_percent(run.budget[part]) for run in runs])
        for part in _PARTS
    ]


def _batch(run: RunValidation) -> str:
    mean, most = run.batch
    return f"{mean:.1f} ({most:,})" if most else "–"


def _details(run: RunValidation, quantity: str) -> list[str]:
    """Return an error in milliseconds, and its 95 % interval, as far as they are known."""
    off_ms, (low, high) = 1e3 * run.difference_s(quantity), run.interval(quantity)
    sign = "" if quantity == "step_mean_absolute" else "+"
    lines = [] if isnan(off_ms) else [f"{off_ms:{sign},.3g} ms"]
    return lines + ([] if isnan(low) else [f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f} %"])


def _launch(run: RunValidation) -> str:
    return f"{1e3 * run.host_launch.seconds:.1f} ms" if run.host_launch else "–"


def threshold_rows(validation: ValidationData, detailed: bool = False) -> tuple[list[str], Rows]:
    """Return the columns (the bar, and every regime that has runs), and a row for each quantity.

    A cell has the largest error, ticked or crossed where there is a bar, in brackets where it does
    not bind (from ρ = 0.8 on), with a `TRANSIENT`'s mark; `detailed` as in `run_rows`.
    """
    table = threshold_table(validation)
    order = [name for _, name in REGIMES] + ["all", "saturated"]
    regimes = sorted(set(table["regime"]), key=order.index)
    runs = {run.name: run for run in validation.runs}
    rows: Rows = []
    for quantity, own in table.groupby("quantity", sort=False):
        limits = [f"≤ {100 * limit:.3g} %" for limit in dict.fromkeys(own["bar"].dropna())]
        cells = [
            (",\n" if detailed else ", ").join(
                _judged(row, [runs[one] for one in row["run"].split(" / ")], detailed)
                for row in own[own["regime"] == name].to_dict("records")
            )
            for name in regimes
        ]
        rows.append((title(str(quantity)), [" / ".join(limits) or "–", *cells]))
    return ["bar", *regimes], rows


def _judged(row: dict[Any, Any], runs: Sequence[RunValidation], detailed: bool) -> str:
    """Write an error, its marks and details; several runs, of a knee or a pair, have no details."""
    write = as_share if row["quantity"] == "step_mean_absolute" else as_percent
    shown = write(row["error"])
    if row["within"] is not None:
        mark = "✓" if row["within"] else "✗"
        shown += f" {mark}" if row["met"] is not None else f" ({mark})"
    shown += f" {TRANSIENT}" * any(run.transient for run in runs)
    if not detailed or len(runs) > 1:
        return shown
    [run] = runs
    steps = str(row["quantity"]).startswith("step")
    count = f"n {run.num_iterations if steps else run.num_requests:,}"
    return "\n".join([shown, *_details(run, row["quantity"]), count])


def knee_lines(validation: ValidationData) -> list[str]:
    """Return where the knee is, if there are rates enough."""
    knee = validation.knee
    if not isfinite(knee["error"]):
        return []
    return [
        f"knee (mean E2E doubled): measured {knee['measured']:.3g}/s, simulated "
        f"{knee['simulated']:.3g}/s, {as_percent(knee['error'])}"
    ]


def gain_lines(validation: ValidationData) -> list[str]:
    """Return the worth of continuous batching per pair: gain, or mean E2E latency ratio."""
    gains = [
        _pair(f"gain of {row['continuous']} over {row['static']}", row)
        for row in _records(validation.gain)
    ]
    runs = {run.name: run for run in validation.runs}
    return gains + [
        _pair(f"E2E ratio of {row['static']} over {row['continuous']}", row)
        + _sure(runs[row["continuous"]], runs[row["static"]])
        for row in _records(validation.e2e_ratio)
    ]


def _sure(continuous: RunValidation, static: RunValidation) -> str:
    """Write the interval of the error of an E2E ratio, if it has one."""
    (low, high), count = e2e_ratio_interval(continuous, static)
    return "" if isnan(low) else f" ({100 * low:+.1f} to {100 * high:+.1f} %; n {count:,})"


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def _pair(what: str, row: Mapping[Any, Any]) -> str:
    return (
        f"{what}: measured {row['measured']:.2f}×, simulated {row['simulated']:.2f}×, "
        f"{as_percent(row['error'])}"
    )


def blame_lines(validation: ValidationData) -> list[str]:
    """Return of each run that misses a bar what the error of its mean E2E is made of."""
    causes = {run.name: blame(run) for run in validation.runs}
    return [
        f"{name} misses {'; '.join(quantities)}."
        + (f" Of its error of the mean E2E, most is {causes[name]}." if causes[name] else "")
        for name, quantities in missed(validation).items()
    ]
