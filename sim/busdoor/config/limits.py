"""What traces settle for a configuration: longest request, KV memory, fitting policies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from busdoor.config import Config, PoolTable
from busdoor.kv.config import KVConfig
from busdoor_workloads import Trace
from busdoor_workloads.memory_check import check_memory

REPLICA_BYTES = 20_000  # an idle server with its policy and recorder: measured 22,600
SUMMARY_BYTES = 2_000  # one run's metrics: some sixty numbers and their names


@dataclass(frozen=True)
class Limits:
    """What an operator sets from the traffic, where the configuration does not.

    `kv`: memory of the (first) server (where layers attend to a window, as requests of the traces'
    mean length leave it), and `max_model_len`: the smallest power of two that holds the longest
    request, within what the model can. `max_output_tokens`: for policies that reserve, the cap on
    answers whose clients gave none, the smallest power of two that holds the longest one. `pools`:
    memory of a server of each of the configuration's pools.
    """

    kv: KVConfig
    max_output_tokens: int
    pools: tuple[KVConfig, ...] = field(default=(), repr=False)


def limits_for(config: Config, traces: Iterable[Trace]) -> Limits:
    """Settle the limits of a configuration's server for all the traces that it will serve.

    >>> config = Config.from_table({"kv": {"num_blocks": 100}})
    >>> limits_for(config, [Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50])])
    Limits(kv=KVConfig(num_blocks=100, max_model_len=2048, block_size=16), max_output_tokens=64)
    """
    check_sizes(config)
    seen = [
        (longest_request(trace), int(trace.output_tokens.max(initial=1)), _mean_request(trace))
        for trace in traces
    ]
    *longest, means = zip(*(seen or [(2, 1, 0.0)]), strict=True)
    request, answer = (_power_of_two(max(lengths)) for lengths in longest)
    context = sum(means) / len(means)
    pools = tuple(_memory(pool, request, context) for pool in config.pools)
    return Limits(pools[0], answer, pools)


def servable(config: Config, trace: Trace) -> Trace:
    """Return a trace without requests too long for every server: refused, they set no limits.

    >>> config = Config.from_table({"kv": {"num_blocks": 100, "max_model_len": 1024}})
    >>> len(servable(config, Trace(arrival_s=[0, 1], input_tokens=[1000, 2000], output_tokens=[5, 5])))
    1
    """
    most = max(
        pool.kv.max_model_len or pool.gpu.model.max_position_embeddings for pool in config.pools
    )
    fits = trace.input_tokens + trace.output_tokens <= most
    return trace if fits.all() or not fits.any() else trace.select(fits)


def check_sizes(config: Config) -> None:
    """Raise ValueError if a configuration's servers or results do not fit the memory.

    >>> check_sizes(Config.from_table({"replications": 10**12, "policy": [{"name": "vllm"}]}))
    Traceback (most recent call last):
    ValueError: a study with 1,000,000,000,000 replications of 1 policy needs ... GiB, the machine has ...
    """
    servers = sum(pool.replicas for pool in config.pools)
    check_memory(servers * REPLICA_BYTES, f"a cluster of {servers:,} replicas")
    policies = f"{len(config.policies)} polic{'y' if len(config.policies) == 1 else 'ies'}"
    runs = config.replications * len(config.policies)
    check_memory(
        runs * SUMMARY_BYTES, f"a study with {config.replications:,} replications of {policies}"
    )


def _mean_request(trace: Trace) -> float:
    """Mean tokens of a trace's requests, prompt and answer; 0 of an empty one."""
    return float(np.sum(trace.input_tokens + trace.output_tokens)) / max(1, len(trace))


def _memory(pool: PoolTable, longest_request: int, context_tokens: float) -> KVConfig:
    kv = pool.kv
    return KVConfig(
        block_size=kv.block_size,
        num_blocks=kv.num_blocks or pool.gpu.num_blocks(kv.block_size, context_tokens),
        max_model_len=kv.max_model_len
        or min(longest_request, pool.gpu.model.max_position_embeddings),
    )


def _power_of_two(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()


def longest_request(trace: Trace) -> int:
    """Tokens of a trace's longest request, its answer as long as its client allows."""
    outputs = trace.output_tokens if trace.max_output_tokens is None else trace.max_output_tokens
    return int(np.max(trace.input_tokens + outputs, initial=2))  # a token of each


def misfits(config: Config, trace: Trace) -> dict[str, str]:
    """Policies that a configuration's server cannot run on a trace, by label, with the reason.

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
    """Return a sentence for each policy whose prefix cache finds nothing that requests of a trace share.

    >>> config = Config.from_table({"policy": ["vllm", {"name": "vllm", "label": "cached", "prefix_caching": True}]})
    >>> idle_caches(config, Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50], name="mine"))
    ['cached: prefix_caching finds only what preempted requests had, as those of mine name no blocks ...']
    """
    if trace.hash_ids is not None:
        return []
    note = f"; {trace.metadata['note']}" if "note" in trace.metadata else ""
    return [
        f"{policy.label}: prefix_caching finds only what preempted requests had, as those of "
        f"{trace.name} name no blocks that they share (hash_ids){note}"
        for policy in config.policies
        if getattr(policy.config, "prefix_caching", False)
    ]
