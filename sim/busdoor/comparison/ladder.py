"""The ladder: from static batching to vllm, one change at a time, saturated on the same draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from busdoor.config import Config, PolicyTable
from busdoor.metrics.statistics import paired_ratio

_RATIOS = [f"{name}{end}" for name in ("factor", "over_static") for end in ("", "_low", "_high")]
# A batch padded to the longest answers of the whole trace lets no row finish early: it must be
# its own longest.
_SKIP: dict[str, Any] = {
    "finished_rows": "skip",
    "pad_to": "batch",
    "pad_input_tokens": None,
    "pad_output_tokens": None,
}


class Rung(NamedTuple):
    """One configuration of the ladder, and its name in tables and figures."""

    title: str
    policy: PolicyTable


def rungs(config: Config, tuned: PolicyTable | None) -> list[Rung]:
    """Return the steps of the ladder, bottom first; none unless `static` and `vllm` are compared.

    `tuned` is static batching at its best batch size, if it was searched for.

    >>> policies = [{"name": "static", "batch_size": 8}, {"name": "vllm"}]
    >>> config = Config.from_table({"policy": policies})
    >>> [rung.title for rung in rungs(config, None)]
    ['static', '+ finished rows skipped', 'orca (oracle), 8 slots', 'vllm, 8 slots', 'vllm']
    """
    statics = [policy for policy in config.policies if policy.name == "static"]
    given = next(
        iter([*(policy for policy in statics if policy.config.batch_size is None), *statics]), None
    )
    vllm = next((policy for policy in config.policies if policy.name == "vllm"), None)
    return list(_rungs(config, given, tuned, vllm)) if given and vllm else []


def _rungs(
    config: Config, static: PolicyTable, tuned: PolicyTable | None, vllm: PolicyTable
) -> Iterator[Rung]:
    best = tuned or static
    slots = min(best.config.batch_size, best.config.max_num_seqs)
    yield Rung(static.label, static)
    if tuned is not None:
        yield Rung(f"+ best batch size ({slots:,})", tuned)
    yield Rung(
        "+ finished rows skipped", best.with_fields(f"{best.label}, finished rows skipped", **_SKIP)
    )
    orca = {"name": "orca", "reservation": "oracle", "max_num_seqs": slots}
    yield Rung(f"orca (oracle), {slots:,} slots", PolicyTable.from_table(orca, config.gpu))
    # a token for each slot at least, as vLLM demands
    budget = max(slots, vllm.config.max_num_batched_tokens)
    few = vllm.with_fields(
        f"{vllm.label}, {slots} slots", max_num_seqs=slots, max_num_batched_tokens=budget
    )
    yield Rung(f"{vllm.label}, {slots:,} slots", few)
    yield Rung(vllm.label, vllm)


def ladder_table(tokens_per_s: pd.Series[float]) -> pd.DataFrame:
    """Compute the factor of each step of a ladder, bottom first, with its paired 95 % interval.

    `tokens_per_s` when saturated, by (rung, replication). A row per rung: `tokens_per_s`, the mean;
    `factor`, times the rung below it, with `factor_low` and `factor_high` (1 for the first);
    `over_static`, times the first, likewise.

    >>> rows = {("static", 0): 100.0, ("static", 1): 110.0, ("vllm", 0): 300.0, ("vllm", 1): 330.0}
    >>> ladder_table(pd.Series(rows))["factor"].round(6).to_dict()
    {'static': 1.0, 'vllm': 3.0}
    """
    names = list(dict.fromkeys(tokens_per_s.index.get_level_values(0)))
    own = [tokens_per_s.xs(name) for name in names]
    steps = zip(own, [*own[:1], *own], strict=False)
    rows = [
        (mine.mean(), *paired_ratio(mine, below), *paired_ratio(mine, own[0]))
        for mine, below in steps
    ]
    return pd.DataFrame(
        rows, columns=["tokens_per_s", *_RATIOS], index=pd.Index(names, name="rung")
    )
