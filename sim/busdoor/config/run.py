"""From configuration to run: memory, scheduler, step time put together and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from busdoor.cluster.load import cluster_load, pools_load
from busdoor.cluster.simulate import simulate_cluster
from busdoor.cluster.simulate_disaggregated import simulate_disaggregated
from busdoor.config import ClusterTable, Config, PolicyTable
from busdoor.config.limits import Limits
from busdoor.metrics.slo_class import CLASSES_COLUMN, classes_of
from busdoor.results.result import Result
from busdoor.simulator.replica import Replica
from busdoor.simulator.simulate import simulate
from busdoor.simulator.system import Progress
from busdoor_workloads import Trace, replication_seed


def run(
    config: Config,
    policy: PolicyTable,
    trace: Trace,
    limits: Limits,
    *,
    step_by_step: bool = False,
    iterations: bool = True,
    meta: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a trace through one policy of a configuration, within limits of `limits_for`.

    See `busdoor.simulator.simulate.simulate`; the result's meta has the configuration, from which
    the run can be repeated, and `meta`.
    """
    policy = policy.capped(limits.max_output_tokens)
    noted = {
        **described(config, policy),
        "max_model_len": limits.kv.max_model_len,
        **(meta or {}),
    }
    settings: dict[str, Any] = {
        "lookahead": config.lookahead,
        "engine": config.engine,
        "step_by_step": step_by_step,
        "iterations": iterations,
        "progress": progress,
    }
    if config.cluster is None:
        own = policy.build(limits.kv, trace)
        return _classed(
            config, trace, simulate(trace, own, config.step_time, meta=noted, **settings)
        )
    pools = [replicas(config, pool, policy, trace, limits) for pool in range(len(config.pools))]
    seed = replication_seed(config.seed, noted.get("replication", 0))
    result = _run_cluster(config.cluster, pools, trace, seed=seed, meta=noted, **settings)
    return _classed(config, trace, result)


def described(config: Config, policy: PolicyTable) -> dict[str, Any]:
    """Return what a run of a configuration has in its meta, from which it can be repeated."""
    return {
        "policy": policy.label,
        "policy_config": policy.to_dict(),
        "gpu": " + ".join(dict.fromkeys(pool.gpu.name.name for pool in config.pools)),
        "model": config.gpu.model.name,
        "tp": config.pools[0].gpu.tp,
        "seed": config.seed,
        "slo": config.slo.per_request_s,
        "prediction": config.prediction,
        "config": config.with_policy(policy).to_dict(),
    }


def _classed(config: Config, trace: Trace, result: Result) -> Result:
    """Note in a result's requests which classes of the SLO each is of."""
    if config.slo.classes:
        names = classes_of(trace, config.slo.classes)
        result.requests[CLASSES_COLUMN] = names[result.requests["request_id"].to_numpy()]
    return result


def replicas(
    config: Config, pool: int, policy: PolicyTable, trace: Trace, limits: Limits
) -> list[Replica]:
    """Make the servers of one pool of a configuration, each with a fresh scheduler.

    >>> from busdoor.config.limits import limits_for
    >>> config = Config.from_table({"cluster": {"replicas": 3}, "policy": "vllm", "kv": {"num_blocks": 100}})
    >>> trace = Trace(arrival_s=[0], input_tokens=[10], output_tokens=[5])
    >>> len(replicas(config, 0, config.policies[0], trace, limits_for(config, [trace])))
    3
    """
    table = config.pools[pool]
    own = table.policy_of(policy).capped(limits.max_output_tokens)
    about = {"gpu": table.gpu.name.name, "tp": table.gpu.tp}
    return [
        Replica(own.build(limits.pools[pool], trace), table.step_time, table.weight, about)
        for _ in range(table.replicas)
    ]


def carried_rps(config: Config, policy: PolicyTable, trace: Trace, limits: Limits) -> float:
    """Return the requests per second that a configuration carries, in closed form.

    Parameters as in `run`; the trace has a rate. Of prefill and decode pools the busier one counts.

    >>> from busdoor.config.limits import limits_for
    >>> trace = Trace(arrival_s=[0.0, 1.0], input_tokens=[100, 100], output_tokens=[50, 50])
    >>> one, four = (Config.from_table({"policy": "vllm", **table})
    ...              for table in ({}, {"cluster": {"replicas": 4}}))
    >>> rates = [carried_rps(own, own.policies[0], trace, limits_for(own, [trace])) for own in (one, four)]
    >>> round(rates[1] / rates[0], 9)
    4.0
    """
    if config.cluster is None:
        own = policy.capped(limits.max_output_tokens).build(limits.kv, trace)
        return own.capacity_rps(trace, config.step_time)
    pools = [replicas(config, pool, policy, trace, limits) for pool in range(len(config.pools))]
    if not config.cluster.disaggregated:
        return trace.request_rate / cluster_load(trace, list(chain(*pools)))
    return trace.request_rate / pools_load(trace, *by_role(config.cluster, pools))


def by_role(
    cluster: ClusterTable, pools: Sequence[Sequence[Replica]]
) -> tuple[list[Replica], list[Replica]]:
    """Return the prefill servers and the decode servers of a cluster's pools."""
    prefill, decode = (
        [
            replica
            for table, pool in zip(cluster.pools, pools, strict=True)
            if table.role == role
            for replica in pool
        ]
        for role in ("prefill", "decode")
    )
    return prefill, decode


def _run_cluster(
    cluster: ClusterTable, pools: Sequence[Sequence[Replica]], trace: Trace, **settings: Any
) -> Result:
    """Run a trace through the fresh servers of each pool, as the table [cluster] connects them."""
    if not cluster.disaggregated:
        return simulate_cluster(trace, list(chain(*pools)), cluster.router, **settings)
    assert cluster.link_bytes_per_s is not None  # the table was checked
    prefill, decode = by_role(cluster, pools)
    kv_bytes = cluster.kv_bytes_per_token
    return simulate_disaggregated(
        trace,
        prefill,
        decode,
        cluster.link_bytes_per_s,
        link_latency_s=cluster.link_latency_s,
        kv_bytes_per_token=cluster.pools[0].gpu.kv_bytes_per_token()
        if kv_bytes is None
        else kv_bytes,
        prefill_router=cluster.router,
        decode_router=cluster.decode_router or cluster.router,
        **settings,
    )
