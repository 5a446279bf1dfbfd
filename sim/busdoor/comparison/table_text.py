"""What `busdoor compare` and `busdoor simulate` show in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from busdoor.comparison.summary_text import refusals
from busdoor.metrics.statistics import is_undecided

if TYPE_CHECKING:
    import pandas as pd

    from busdoor.comparison.comparison import Comparison
    from busdoor.metrics.slo import SLO, Target
    from busdoor.results.result import Result

NOTHING = "–"
LADDER = "The ladder: one change at a time, each saturated on the same draws."
LADDER_HEADS = ("tokens/s", "× the step above (95 %)", "× static")
_EXACT_SHARE = 1e-9  # of a mean: an interval this narrow is a rounding error
LATENCIES = {"TTFT": "ttft", "TPOT": "tpot", "E2E": "e2el"}


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison: a column per policy, the ladder, then the verdict."""
    console = Console()
    console.print(heading(comparison))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)  # 80 columns hold four policies and static's best batch size
    for name in comparison.policies:
        table.add_column(escape(name.replace(" (", "\n(")), justify="right")
    for title, cells in comparison_rows(comparison):
        table.add_row(title, *cells, end_section=False)
    console.print(table)
    console.print()
    if len(comparison.ladder):
        print_ladder(comparison, console)
    console.print(escape(comparison.verdict), soft_wrap=False, highlight=False)


def print_ladder(comparison: Comparison, console: Console) -> None:
    """Print what each step from static batching to vllm is worth."""
    console.print(LADDER)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in LADDER_HEADS:
        table.add_column(head, justify="right")
    for title, cells in ladder_rows(comparison):
        table.add_row(escape(title), *cells)
    console.print(table)
    console.print()


def ladder_rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return the lines of the ladder, bottom first: a title, and a cell for each of `LADDER_HEADS`."""
    rows = []
    for number_of, (title, row) in enumerate(comparison.ladder.iterrows()):
        step = ratio(row["factor"], row["factor_low"], row["factor_high"]) if number_of else NOTHING
        rows.append((str(title), [number(row["tokens_per_s"]), step, f"{row['over_static']:.2f}×"]))
    return rows


def ratio(value: float, low: float, high: float) -> str:
    """Write a ratio with its interval.

    Examples
    --------
    >>> ratio(7.04, 6.71, 7.2), ratio(1.0, 1.0, 1.0), ratio(2.0, float("nan"), float("nan")), ratio(2.0, 0.5, 8.0)
    ('7.04× (6.71 to 7.20)', '1', '2.00×', '2.00× (undecided: 0.50 to 8.00)')
    """
    if low == high == value:
        return "1"
    if isnan(value):
        return NOTHING
    undecided = "undecided: " if is_undecided(value, low, high) else ""
    return f"{value:.2f}×" if isnan(low) else f"{value:.2f}× ({undecided}{low:.2f} to {high:.2f})"


def heading(comparison: Comparison) -> str:
    """Say what was compared."""
    first = next(iter(comparison.results.values()))
    config, rate = comparison.config, comparison.request_rate
    count = int(comparison.summaries.groupby("policy").size().max())
    arrivals = "all at once" if isnan(rate) else f"{rate:.3g}/s"
    behind = "" if config.cluster is None else f" behind {config.cluster.routers}"
    return (
        f"[bold]{escape(first.meta['trace'])}[/], {first.meta['num_requests']:,} requests, {arrivals}, "
        f"on {escape(config.where)}{behind}; "
        f"mean of {count} replication{'s' * (count > 1)}\n"
    )


def comparison_rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return the lines of the table: a title, and a cell a policy."""
    table = comparison.table

    def line(title: str, cell: Callable[[pd.Series[Any]], str]) -> tuple[str, list[str]]:
        return title, [cell(row) for _, row in table.iterrows()]

    rows = [
        line("requests answered/s", lambda row: number(row["request_throughput"])),
        line("output tokens/s", lambda row: number(row["output_throughput"])),
    ]
    for short, key in LATENCIES.items():
        for name, kind in (("p50", "median"), ("p99", "p99")):
            rows.append(line(f"{short} {name}", lambda row, key=f"{kind}_{key}_ms": duration(row[key])))  # type: ignore[misc]
    rows += [
        line("slots held (mean)", _held),
        line("bubbles in them", lambda row: percent(row["bubble_share"])),
        line("padding computed", lambda row: percent(row["padding_share"])),
        line("KV memory wasted", lambda row: percent(row["kv_wasted_share"])),
        ("[bold]saturated[/]: tokens/s", [_capacity(comparison, name) for name in comparison.policies]),
        (f"gain over {escape(comparison.static)}", [_gain(comparison, name) for name in comparison.policies]),
        *([line("busiest over mean", _imbalance)] if "imbalance" in table else []),
        line("load over capacity", lambda row: percent(row["offered_load"], 0)),
        line("GPUs by throughput", lambda row: number(row["gpus"])),
    ]
    if "cost_per_hour" in table:
        rows.append(line("their price an hour", lambda row: f"{row['cost_per_hour']:.2f}"))
    if "slo_met" in table:
        rows.append(line("goodput, requests/s", lambda row: number(row["request_goodput"])))
        rows.append(line("SLO met", lambda row: "yes" if row["slo_met"] == 1 else "no"))
    return rows


def _held(row: pd.Series[Any]) -> str:
    """Mean number of slots that were held, of how many."""
    return NOTHING if isnan(row["slot_use"]) else f"{row['slot_use'] * row['num_slots']:.0f} of {row['num_slots']:,.0f}"


def _imbalance(row: pd.Series[Any]) -> str:
    return NOTHING if isnan(row["imbalance"]) else f"{row['imbalance']:.2f}×"


def _capacity(comparison: Comparison, name: str) -> str:
    ends = comparison.intervals.to_dict()
    mean, low, high = (float(ends[end][name, "saturated_output_throughput"]) for end in ("mean", "low", "high"))
    half = (high - low) / 2  # two digits of it are all that a few replications tell
    if isnan(low) or half < _EXACT_SHARE * mean:
        return number(mean)
    if is_undecided(mean, low, high):
        return f"{number(mean)}\nundecided"
    return f"{number(mean)} ±{half:{',.0f' if half >= 10 else '.2g'}}"


def _gain(comparison: Comparison, name: str) -> str:
    gain = float(comparison.gain["over_static"][name])
    return NOTHING if isnan(gain) else f"{gain:.2f}×"


def print_summary(result: Result, slo: SLO | None = None) -> None:
    """Print what ran, what it came to, and whether it met the SLO."""
    summary = result.summary
    console = Console()
    console.print(escape(what_ran(result.meta)), highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, value in [*summary_rows(summary), *slo_rows(result, slo)]:
        table.add_row(title, value)
    console.print(table)
    for reason, count in refusals(result.requests).items():
        console.print(f"Refused: {count:,}; {escape(reason)}", style="yellow", highlight=False)
    if summary["saturated"]:
        console.print("The server cannot keep up: its queue grows as long as requests come.", style="yellow")


def what_ran(meta: Mapping[str, Any]) -> str:
    """Say in a line which policy ran on what, as a result's meta has it; a calibration stands for GPU and model.

    Examples
    --------
    >>> what_ran({"policy": "vllm", "gpu": "h100", "model": "llama-3.1-8b", "step_time": {"name": "roofline"}})
    'Policy vllm; GPU h100; model llama-3.1-8b; step time roofline.'
    """
    step_time = meta.get("step_time") or {}
    calibration = step_time.get("calibration")
    parts = {
        "Policy": meta.get("policy"),
        "GPU": None if calibration else meta.get("gpu"),
        "model": None if calibration else meta.get("model"),
        "step time": f"{calibration} (calibrated)" if calibration else step_time.get("name"),
        "lookahead": meta.get("lookahead"),
    }
    return "; ".join(f"{title} {value}" for title, value in parts.items() if value is not None) + "."


def slo_rows(result: Result, slo: SLO | None) -> list[tuple[str, str]]:
    """Return the lines of the SLO, if there is one: the share within each limit, and whether all targets are met."""
    from busdoor.comparison.experiment import slo_shares

    if not slo:
        return []
    shares = slo_shares(result, slo)
    rows = [(str(target), _reached(target, shares[f"slo_{target.key}"])) for target in slo.targets]
    return [*rows, ("SLO met", "yes" if shares["slo_met"] else "no")]


def _reached(target: Target, share: float) -> str:
    return percent(share) if target.share is not None else "yes" if share else "no"


def summary_rows(summary: pd.Series[Any]) -> list[tuple[str, str]]:
    """Return the lines of a run's summary."""
    rows = [
        ("requests answered", f"{summary['completed']:,} of {summary['completed'] + summary['failed']:,}"),
        ("duration", duration(summary["duration"] * 1e3)),
        ("requests/s", number(summary["request_throughput"])),
        ("output tokens/s", number(summary["output_throughput"])),
    ]
    for short, key in {**LATENCIES, "ITL": "itl"}.items():
        values = [summary[f"{kind}_{key}_ms"] for kind in ("median", "p90", "p99")]
        rows.append((f"{short} p50, p90, p99", "  ".join(map(duration, values))))
    shares = {"slot_use": "slots held", "bubble_share": "bubbles in them", "padding_share": "padding computed",
              "kv_wasted_share": "KV memory wasted"}  # fmt: skip
    rows += [(title, percent(summary[key])) for key, title in shares.items()]
    rows.append(("preemptions", f"{summary['num_preemptions']:,}"))
    return rows


def number(value: float) -> str:
    """Write a number with three digits or more.

    Examples
    --------
    >>> number(4.0), number(12345.6), number(3.14159), number(float("nan"))
    ('4', '12,346', '3.14', '–')
    """
    if isnan(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def duration(milliseconds: float) -> str:
    """Write a duration in the unit that suits it.

    Examples
    --------
    >>> duration(0.5), duration(34.6), duration(1590), duration(255742)
    ('0.5 ms', '35 ms', '1.6 s', '4.3 min')
    """
    if isnan(milliseconds):
        return NOTHING
    for unit, size in (("h", 3.6e6), ("min", 1.2e5), ("s", 1e3)):
        if milliseconds >= size:
            per = {"h": 3.6e6, "min": 6e4, "s": 1e3}[unit]
            return f"{milliseconds / per:.1f} {unit}"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def percent(share: float, digits: int = 1) -> str:
    """Write a share in per cent.

    Examples
    --------
    >>> percent(0.3061), percent(0.0)
    ('30.6 %', '0 %')
    """
    if isnan(share):
        return NOTHING
    return "0 %" if share == 0 else f"{100 * share:.{digits}f} %"
