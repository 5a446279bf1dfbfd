"""What the same SLO costs with other policies on the winner's server: the ladder from static on."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pandas as pd

from busdoor.capacity.api import REPLICATIONS, make_study
from busdoor.capacity.estimate import Outcome
from busdoor.capacity.sizing import replicas_needed
from busdoor.capacity.study import Study
from busdoor.config import Config, PolicyTable
from busdoor.recommend.certainty import Certainty
from busdoor.recommend.race import Entry, Verdict

# How far apart the ends of a policy's bracket may be: the answer is in whole servers, and the first
# two need many times as many as the last.
_TOLERANCES = {"static": 0.1, "orca": 0.1, "vllm": 0.05}


def ladder(best: Verdict, sure: Certainty) -> pd.DataFrame:
    """Return what each policy needs of the winner's server, dearest first.

    The rate is split evenly among the servers. By policy `replicas`, `gpus`, `cost_per_hour`; NaN
    where no number of servers meets the SLO, with the `reason`. Where the race has shown that the
    winner's number is enough for vllm as its engine sets it, that is its row. Where servers are sized
    for a confidence, these have the winner's margin: the model is as wrong for them.
    """
    winner, rate = best.best.candidate, sure.request_rate
    margin = sure.margin(winner)
    known = {"vllm": float(winner.replicas)} if any(map(_as_set_by_engine, best.entries)) else {}
    reasons = dict.fromkeys(known, "")
    for name in _TOLERANCES:
        if name in known:
            continue
        study = _study(winner.server.config, name, sure)
        for answer in study.answers:
            carried = min(answer.low, margin * answer.rate)
            needed = replicas_needed(rate, carried, answer.least)
            known[answer.policy] = needed
            unmet = answer.reason or "batches fill too slowly"
            reasons[answer.policy] = "" if needed == needed else unmet
    table = pd.DataFrame({"replicas": known, "reason": reasons}).rename_axis("policy")
    table.insert(1, "gpus", table["replicas"] * winner.server.config.num_gpus)
    table.insert(2, "cost_per_hour", table["replicas"] * winner.server.price_per_hour)
    return table.sort_values("cost_per_hour", ascending=False, key=lambda cost: cost.fillna(inf))


def _as_set_by_engine(entry: Entry) -> bool:
    setup, policy = entry.candidate.setup, entry.candidate.server.config.policies[0]
    own = policy.name == "vllm" and not setup.fields and not setup.num_prefill
    return own and entry.outcome is Outcome.MEETS


def _study(config: Config, name: str, sure: Certainty) -> Study:
    """Search for a policy's highest rate on a server."""
    policy = PolicyTable.from_table({"name": name}, config.gpu, _limits(config))
    own = replace(config, policies=(policy,), replications=REPLICATIONS)
    study = make_study(own, tolerance=_TOLERANCES[name])
    study.start(sure.pool, None)
    study.run()
    return study


def _limits(config: Config) -> dict[str, int]:
    return {} if config.engine is None else config.engine.limits
