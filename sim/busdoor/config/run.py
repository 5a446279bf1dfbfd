"""From a configuration to a run: memory, scheduler and step time put together, and noted in the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from busdoor.cluster.simulate import simulate_cluster
from busdoor.cluster.simulate_disaggregated import simulate_disaggregated
from busdoor.config import ClusterTable, Config, PolicyTable, PoolTable
from busdoor.kv.config import KVConfig
from busdoor.results.result import Result
from busdoor.simulator.replica import Replica
from busdoor.simulator.simulate import simulate
from busdoor.simulator.system import Progress
from busdoor_workloads import Trace, replication_seed
from busdoor_workloads.memory_check import check_memory

REPLICA_BYTES = 20_000  # an idle server with its policy and recorder: measured 22,600
SUMMARY_BYTES = 2_000  # one run's metrics: some sixty numbers and their names


@dataclass(frozen=True)
class Limits:
    """What an operator who knows the traffic sets, where the configuration is silent.

    Parameters
    ----------
    kv : KVConfig
        Memory of the (first) server (where layers attend to a window, as requests of the traces' mean length leave it),
        and `max_model_len`: the smallest power of two that holds the longest request, within what the model can.
    max_output_tokens : int
        For policies that reserve: cap on answers whose clients gave none, the smallest power of two that holds the
        longest one.
    pools : tuple of KVConfig
        Memory of a server of each of the configuration's pools.
    """

    kv: KVConfig
    max_output_tokens: int
    pools: tuple[KVConfig, ...] = field(default=(), repr=False)


def limits_for(config: Config, traces: Iterable[Trace]) -> Limits:
    """Settle the limits of a configuration's server for all the traces that it will serve.

    Examples
    --------
    >>> config = Config.from_table({"kv": {"num_blocks": 100}})
    >>> limits_for(config, [Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50])])
    Limits(kv=KVConfig(num_blocks=100, max_model_len=2048, block_size=16), max_output_tokens=64)
    """
    check_sizes(config)
    seen = [(longest_request(trace), int(trace.output_tokens.max(initial=1)), _mean_request(trace)) for trace in traces]
    *longest, means = zip(*(seen or [(2, 1, 0.0)]), strict=True)
    request, answer = (_power_of_two(max(lengths)) for lengths in longest)
    context = sum(means) / len(means)
    pools = tuple(_memory(pool, request, context) for pool in config.pools)
    return Limits(pools[0], answer, pools)


def servable(config: Config, trace: Trace) -> Trace:
    """Return a trace without the requests that are too long for every server: they are refused, and set no limits.

    Examples
    --------
    >>> config = Config.from_table({"kv": {"num_blocks": 100, "max_model_len": 1024}})
    >>> len(servable(config, Trace(arrival_s=[0, 1], input_tokens=[1000, 2000], output_tokens=[5, 5])))
    1
    """
    most = max(pool.kv.max_model_len or pool.gpu.model.max_position_embeddings for pool in config.pools)
    fits = trace.input_tokens + trace.output_tokens <= most
    return trace if fits.all() or not fits.any() else trace.select(fits)


def check_sizes(config: Config) -> None:
    """Raise ValueError where the servers or the results of a configuration do not fit into this machine's memory.

    Examples
    --------
    >>> check_sizes(Config.from_table({"replications": 10**12, "policy": [{"name": "vllm"}]}))
    Traceback (most recent call last):
    ValueError: a study with 1,000,000,000,000 replications of 1 policy needs ... GiB, the machine has ...
    """
    servers = sum(pool.replicas for pool in config.pools)
    check_memory(servers * REPLICA_BYTES, f"a cluster of {servers:,} replicas")
    policies = f"{len(config.policies)} polic{'y' if len(config.policies) == 1 else 'ies'}"
    runs = config.replications * len(config.policies)
    check_memory(runs * SUMMARY_BYTES, f"a study with {config.replications:,} replications of {policies}")


def _mean_request(trace: Trace) -> float:
    """Mean tokens of a trace's requests, prompt and answer; 0 of an empty one."""
    return float(np.sum(trace.input_tokens + trace.output_tokens)) / max(1, len(trace))


def _memory(pool: PoolTable, longest_request: int, context_tokens: float) -> KVConfig:
    kv = pool.kv
    return KVConfig(
        block_size=kv.block_size,
        num_blocks=kv.num_blocks or pool.gpu.num_blocks(kv.block_size, context_tokens),
        max_model_len=kv.max_model_len or min(longest_request, pool.gpu.model.max_position_embeddings),
    )


def _power_of_two(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()


def longest_request(trace: Trace) -> int:
    """Tokens of a trace's longest request, its answer as long as its client allows."""
    outputs = trace.output_tokens if trace.max_output_tokens is None else trace.max_output_tokens
    return int(np.max(trace.input_tokens + outputs, initial=2))  # a token of each


def misfits(config: Config, trace: Trace) -> dict[str, str]:
    """Policies that a configuration's server cannot run on a trace, by label, each with the sentence that says why.

    Examples
    --------
    >>> config = Config.from_table({"kv": {"num_blocks": 400, "max_model_len": 16384}})
    >>> list(misfits(config, Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50])))
    ['orca']
    """
    limits, found = limits_for(config, [servable(config, trace)]), {}
    for policy in config.policies:
        try:
            policy.capped(limits.max_output_tokens).build(limits.kv, trace)
        except ValueError as error:
            found[policy.label] = str(error)
    return found


def idle_caches(config: Config, trace: Trace) -> list[str]:
    """Return a sentence for each policy whose prefix cache cannot find anything in a trace.

    Examples
    --------
    >>> config = Config.from_table({"policy": ["vllm", {"name": "vllm", "label": "cached", "prefix_caching": True}]})
    >>> idle_caches(config, Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50], name="mine"))
    ['cached: prefix_caching finds nothing, as the requests of mine name no blocks that they share (hash_ids)']
    """
    if trace.hash_ids is not None:
        return []
    note = f"; {trace.metadata['note']}" if "note" in trace.metadata else ""
    return [
        f"{policy.label}: prefix_caching finds nothing, as the requests of {trace.name} name no blocks that they share "
        f"(hash_ids){note}"
        for policy in config.policies
        if getattr(policy.config, "prefix_caching", False)
    ]


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
    """Run a trace through one policy of a configuration.

    Parameters
    ----------
    config : Config
        Its step time, lookahead and SLO.
    policy : PolicyTable
        Which policy.
    trace : Trace
        Who arrives.
    limits : Limits
        As `limits_for` settles them.
    step_by_step, iterations, progress
        As in `busdoor.simulator.simulate.simulate`.
    meta : dict, optional
        What else to note.

    Returns
    -------
    Result
        Its meta has the configuration, from which the run can be repeated.
    """
    policy = policy.capped(limits.max_output_tokens)
    noted: dict[str, Any] = {
        "policy": policy.label,
        "policy_config": policy.to_dict(),
        "max_model_len": limits.kv.max_model_len,
        "gpu": " + ".join(dict.fromkeys(pool.gpu.name.name for pool in config.pools)),
        "model": config.gpu.model.name,
        "tp": config.pools[0].gpu.tp,
        "seed": config.seed,
        "slo": config.slo.per_request_s,
        "config": config.with_policy(policy).to_dict(),
    } | (meta or {})
    settings: dict[str, Any] = {
        "lookahead": config.lookahead,
        "step_by_step": step_by_step,
        "iterations": iterations,
        "progress": progress,
    }
    if config.cluster is None:
        return simulate(trace, policy.build(limits.kv, trace), config.step_time, meta=noted, **settings)
    pools = [replicas(config, pool, policy, trace, limits) for pool in range(len(config.pools))]
    seed = replication_seed(config.seed, noted.get("replication", 0))
    return _run_cluster(config.cluster, pools, trace, seed=seed, meta=noted, **settings)


def replicas(config: Config, pool: int, policy: PolicyTable, trace: Trace, limits: Limits) -> list[Replica]:
    """Make the servers of one pool of a configuration, each with a fresh scheduler.

    Examples
    --------
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


def _run_cluster(cluster: ClusterTable, pools: Sequence[Sequence[Replica]], trace: Trace, **settings: Any) -> Result:
    """Run a trace through the fresh servers of each pool, as the table [cluster] connects them."""
    if not cluster.disaggregated:
        return simulate_cluster(trace, list(chain(*pools)), cluster.router, **settings)
    assert cluster.link_bytes_per_s is not None  # the table was checked
    prefill, decode = (
        [replica for table, pool in zip(cluster.pools, pools, strict=True) if table.role == role for replica in pool]
        for role in ("prefill", "decode")
    )
    kv_bytes = cluster.kv_bytes_per_token
    return simulate_disaggregated(
        trace,
        prefill,
        decode,
        cluster.link_bytes_per_s,
        link_latency_s=cluster.link_latency_s,
        kv_bytes_per_token=cluster.pools[0].gpu.kv_bytes_per_token() if kv_bytes is None else kv_bytes,
        prefill_router=cluster.router,
        decode_router=cluster.decode_router or cluster.router,
        **settings,
    )
