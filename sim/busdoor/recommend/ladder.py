"""What the same SLO costs with other policies on the winner's server: the ladder from static on."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from math import inf

import pandas as pd

from busdoor.capacity.api import make_study
from busdoor.capacity.sizing import replicas_needed
from busdoor.config import Config, PolicyTable
from busdoor.recommend.space import Server

_POLICIES = ("static", "orca", "vllm")
# The answer is in whole servers: a search in short runs and to a fifth is enough.
_REQUESTS, _TOLERANCE, _DOUBLINGS, _REPLICATIONS = 150, 0.2, 1, 3


def ladder(
    server: Server, request_rate: float, pool: ProcessPoolExecutor | None = None
) -> pd.DataFrame:
    """Return what each policy needs of a server, dearest first.

    Parameters
    ----------
    server : Server
        The winner's.
    request_rate : float
        To be served, split evenly.
    pool : ProcessPoolExecutor, optional
        Where it runs.

    Returns
    -------
    DataFrame
        By policy `replicas`, `gpus`, `cost_per_hour`; infinity and NaN where no number of servers
        meets the SLO, with the `reason`.
    """
    config = server.config
    policies = tuple(
        PolicyTable.from_table({"name": name}, config.gpu, _limits(config)) for name in _POLICIES
    )
    study = make_study(
        replace(config, policies=policies, replications=_REPLICATIONS),
        num_requests=_REQUESTS,
        tolerance=_TOLERANCE,
        max_doublings=_DOUBLINGS,
    )
    study.start(pool, None)
    study.run()
    rows = {}
    for answer in study.answers:
        needed = replicas_needed(request_rate, answer.low, answer.least)
        rows[answer.policy] = {
            "replicas": needed,
            "gpus": needed * config.num_gpus,
            "cost_per_hour": needed * server.price_per_hour,
            "reason": "" if needed == needed else answer.reason or "batches fill too slowly",
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
    return table.sort_values("cost_per_hour", ascending=False, key=lambda cost: cost.fillna(inf))


def _limits(config: Config) -> dict[str, int]:
    return {} if config.engine is None else config.engine.limits
