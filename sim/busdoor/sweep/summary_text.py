"""What a sweep says, in a few sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from busdoor.core.format import duration, number

_AHEAD = {
    "output_throughput": ("Most", "output tokens/s", number),
    "p99_e2el_ms": ("Least", "E2E p99", duration),
}


def verdict(table: pd.DataFrame, varied: Sequence[str]) -> str:
    r"""Return which policy and which point are ahead; empty where no point is done.

    >>> rows = pd.DataFrame({"policy": ["static", "vllm"], "status": ["done"] * 2,
    ...     "output_throughput": [500.0, 1000.0], "p99_e2el_ms": [9e3, 2e3]})
    >>> print(verdict(rows, ["policy"]).replace(". ", ".\n"))
    vllm serves 2× the output tokens/s of static in 1 of 1 combinations.
    Most output tokens/s: 1,000, with policy vllm.
    Least E2E p99: 2.0 s, with policy vllm.
    """
    done = table.loc[table["status"] == "done"] if "status" in table else table
    sentences = _between_policies(done, varied) if "output_throughput" in done else []
    for metric, (which, words, written) in _AHEAD.items():
        if metric in done and done[metric].notna().any():
            ranked = done.sort_values(metric, ascending=which == "Least", kind="stable")
            row = ranked.to_dict("records")[0]
            values = [f"{key} {_plain(row[key])}" for key in varied]
            where = f", with {', '.join(values)}" if values else ""
            sentences.append(f"{which} {words}: {written(row[metric])}{where}.")
    return " ".join(sentences)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _between_policies(done: pd.DataFrame, varied: Sequence[str]) -> list[str]:
    """Compare the best policy with each other one, at equal values of the other keys."""
    if "policy" not in varied:
        return []
    others = [key for key in varied if key != "policy"]
    wide = done.pivot_table("output_throughput", others or (lambda _: 0), "policy", dropna=False)
    best = wide.mean().idxmax()
    sentences = []
    for policy in wide.columns[wide.columns != best]:
        ratios = (wide[best] / wide[policy]).dropna()
        if not len(ratios):
            continue
        ends = dict.fromkeys(f"{end:.2g}" for end in (ratios.min(), ratios.max()))
        sentences.append(
            f"{best} serves {' to '.join(ends)}× the output tokens/s of {policy} in "
            f"{(ratios > 1).sum()} of {len(ratios)} combinations."
        )
    return sentences
