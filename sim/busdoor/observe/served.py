"""The server of a configuration, without a trace: takes any requests that fit."""

from __future__ import annotations

import numpy as np

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import replicas
from busdoor.simulator.replica import Replica
from busdoor_workloads import Trace


def live_replica(config: Config) -> Replica:
    """Make the one server of a configuration for requests that are not known yet.

    Its `max_model_len`, else the model's longest context, limits the requests. ValueError if the
    configuration has several policies or a cluster.

    >>> config = Config.from_table({"policy": "vllm", "kv": {"num_blocks": 100}})
    >>> live_replica(config).policy.num_slots > 0
    True
    """
    if len(config.policies) != 1:
        names = ", ".join(each.label for each in config.policies)
        raise ValueError(f"a server runs one policy, but the configuration has {names}; choose one")
    if config.cluster is not None:
        raise ValueError("a live server is one server; leave [cluster] out")
    pool = config.pools[0]
    longest = pool.kv.max_model_len or pool.gpu.model.max_position_embeddings
    tokens = np.array([longest - 1])
    trace = Trace(
        arrival_s=np.zeros(1), input_tokens=tokens, output_tokens=np.ones(1, dtype=np.int64)
    )
    limits = limits_for(config, [trace])
    (own,) = replicas(config, 0, config.policies[0], trace, limits)
    return own
