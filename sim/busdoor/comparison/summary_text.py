"""The result of a comparison in a few plain sentences."""

from __future__ import annotations

import numpy as np

from busdoor.comparison.data import ComparisonData
from busdoor.core.names import listed
from busdoor.metrics.statistics import is_undecided
from busdoor.policies.base import spoken
from busdoor.results.table_text import refusals


def verdict(comparison: ComparisonData) -> str:
    """Return the best policy's gain, the GPUs it saves, and the policies that cannot keep up."""
    best = best_policy(comparison)
    parts = [
        gain_text(comparison),
        _gpus(comparison, best),
        _overloaded(comparison),
        _slo(comparison),
        _refused(comparison),
    ]
    return " ".join(part for part in parts if part)


def best_policy(comparison: ComparisonData) -> str:
    """Return the policy with the highest maximum throughput in output tokens per second."""
    tokens_per_s = comparison.table["saturated_output_throughput"].dropna()
    return str(tokens_per_s.idxmax()) if len(tokens_per_s) else comparison.policies[-1]


def gain_text(comparison: ComparisonData) -> str:
    """Return the best policy's gain over static batching in a sentence; empty where unknown."""
    base, best = comparison.static, best_policy(comparison)
    throughput = float(comparison.table["saturated_output_throughput"][best])
    subject = spoken(best, comparison.is_whole_batch(best))
    subject = subject[0].upper() + subject[1:]
    if best == base or np.isnan(throughput):
        if np.isnan(throughput):
            return ""
        return f"{subject} serves {throughput:,.0f} output tokens/s at most."
    row = {str(name): float(values[best]) for name, values in comparison.gain.to_dict().items()}
    if comparison.best_static is None or best == comparison.best_static:
        return (
            f"{subject} serves {row['over_static']:.1f}× the tokens of "
            f"{base}{_interval(row, 'over_static')}."
        )
    return (
        f"{subject} serves {row['over_best_static']:.1f}× the tokens of {base} batching at its "
        f"best batch size{_interval(row, 'over_best_static')}, {row['over_static']:.1f}× at its "
        "default."
    )


def _interval(row: dict[str, float], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    undecided = "undecided: " if is_undecided(row[name], low, high) else ""
    return "" if np.isnan(low) else f" ({undecided}95 % interval {low:.1f} to {high:.1f})"


def _gpus(comparison: ComparisonData, best: str) -> str:
    gpus, base = comparison.table["gpus"], comparison.static
    if best == base or gpus[[best, base]].isna().any():
        return ""
    few, many = int(gpus[best]), int(gpus[base])
    names = {pool.machine for pool in comparison.config.pools}
    card = names.pop() if len(names) == 1 else "GPUs"
    rate = comparison.request_rate
    if comparison.summaries["num_refused"].any():  # they are no load
        loads = comparison.summaries["offered_load"] * comparison.capacities["request_throughput"]
        rate = float(loads.xs(best, level="policy").mean())
    sure, other = (_sure(comparison, name) for name in (best, base))
    return (
        f"By throughput, {rate:.3g} requests/s need {few} {card} with {best}{sure}, {many} with "
        f"{base}{other}."
    )


def _sure(comparison: ComparisonData, name: str) -> str:
    """Return the probability that so many GPUs suffice, in brackets, where it is known."""
    chance = float(comparison.gpus_suffice.get(name, np.nan))
    if np.isnan(chance):
        return ""
    return f" ({'over 99' if chance > 0.99 else f'{100 * chance:.0f}'} %)"


def _overloaded(comparison: ComparisonData) -> str:
    shares = comparison.summaries["saturated"].groupby("policy", sort=False).mean()
    if comparison.table["offered_load"].isna().all():
        return ""
    late = [str(name) for name, share in shares.items() if share > 0.5]  # in most replications
    # the other static row stands for it
    late = [name for name in late if name != comparison.best_static]
    if not late:
        return ""
    config = comparison.config
    servers = "one GPU" if config.gpu.tp == 1 else f"one server of {config.gpu.tp} GPUs"
    servers = servers if config.cluster is None else f"these {config.cluster.num_replicas} servers"
    return (
        f"With {servers} {listed(late)} cannot keep up: queue and latencies grow as long as "
        f"requests come."
    )


def _slo(comparison: ComparisonData) -> str:
    if "slo_met" not in comparison.table:
        return ""
    met = [name for name in comparison.policies if comparison.table.loc[name, "slo_met"] == 1]
    if not met:
        return f"None of them meets the SLO: {comparison.config.slo}."
    return f"The SLO ({comparison.config.slo}) is met by {listed(met)}" + (
        " alone." if len(met) == 1 else "."
    )


def _refused(comparison: ComparisonData) -> str:
    """Return how many requests of the first draw are refused, and why; they are no load."""
    counts = {name: refusals(result.requests) for name, result in comparison.results.items()}
    if not any(counts.values()):
        return ""
    most = max(counts, key=lambda name: sum(counts[name].values()))
    refused, total = sum(counts[most].values()), len(comparison.results[most].requests)
    alike = all(own == counts[most] for own in counts.values())
    where = "" if alike else f" by {most}"
    reasons = "; ".join(counts[most])
    return f"{refused:,} of {total:,} requests are refused{where}, which are no load: {reasons}."
