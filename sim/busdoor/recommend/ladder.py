"""What the same SLO costs with other policies on the winner's server: the ladder from static on."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from math import inf

import pandas as pd

from busdoor.capacity.answer import Answer
from busdoor.capacity.api import REPLICATIONS, make_study
from busdoor.capacity.sizing import replicas_needed
from busdoor.config import Config, PolicyTable
from busdoor.recommend.space import Candidate

# How far apart the ends of a policy's bracket may be: the answer is in whole servers, and the first
# two need many times as many as the last.
_TOLERANCES = {"static": 0.1, "orca": 0.1, "vllm": 0.05}


def ladder(
    winner: Candidate, request_rate: float, pool: ProcessPoolExecutor | None = None
) -> pd.DataFrame:
    """Return what each policy needs of the winner's server, dearest first.

    `request_rate` is split evenly among the servers, which run in `pool` if there is one. By policy
    `replicas`, `gpus`, `cost_per_hour`; NaN where no number of servers meets the SLO, with the
    `reason`. If the winner is vllm as its engine sets it, that row is what the race has decided.
    """
    server = winner.server
    known = {"vllm": float(winner.replicas)} if _as_set_by_engine(winner) else {}
    reasons = dict.fromkeys(known, "")
    for answer in (
        one
        for name in _TOLERANCES
        if name not in known
        for one in _answers(server.config, name, pool)
    ):
        needed = replicas_needed(request_rate, answer.low, answer.least)
        known[answer.policy] = needed
        reasons[answer.policy] = (
            "" if needed == needed else answer.reason or "batches fill too slowly"
        )
    table = pd.DataFrame({"replicas": known, "reason": reasons}).rename_axis("policy")
    table.insert(1, "gpus", table["replicas"] * server.config.num_gpus)
    table.insert(2, "cost_per_hour", table["replicas"] * server.price_per_hour)
    return table.sort_values("cost_per_hour", ascending=False, key=lambda cost: cost.fillna(inf))


def _as_set_by_engine(winner: Candidate) -> bool:
    setup, policy = winner.setup, winner.server.config.policies[0]
    return policy.name == "vllm" and not setup.fields and not setup.num_prefill


def _answers(config: Config, name: str, pool: ProcessPoolExecutor | None) -> list[Answer]:
    policy = PolicyTable.from_table({"name": name}, config.gpu, _limits(config))
    own = replace(config, policies=(policy,), replications=REPLICATIONS)
    study = make_study(own, tolerance=_TOLERANCES[name])
    study.start(pool, None)
    study.run()
    return study.answers


def _limits(config: Config) -> dict[str, int]:
    return {} if config.engine is None else config.engine.limits
