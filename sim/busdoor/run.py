"""From a configuration to a run: memory, scheduler and step time put together, and noted in the result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from busdoor.config import Config, PolicyTable
from busdoor.kv.config import KVConfig
from busdoor.result import Result
from busdoor.simulate import Progress, simulate
from busdoor_workloads import Trace


@dataclass(frozen=True)
class Limits:
    """What an operator who knows the traffic sets, where the configuration is silent.

    Parameters
    ----------
    kv : KVConfig
        Memory, and `max_model_len`: the smallest power of two that holds the longest request, within what the model
        can.
    max_output_tokens : int
        For policies that reserve: cap on answers whose clients gave none, the smallest power of two that holds the
        longest one.
    """

    kv: KVConfig
    max_output_tokens: int


def limits_for(config: Config, traces: Iterable[Trace]) -> Limits:
    """Settle the limits of a configuration's server for all the traces that it will serve.

    Examples
    --------
    >>> config = Config.from_table({"kv": {"num_blocks": 100}})
    >>> limits_for(config, [Trace(arrival_s=[0], input_tokens=[1000], output_tokens=[50])])
    Limits(kv=KVConfig(num_blocks=100, max_model_len=2048, block_size=16), max_output_tokens=64)
    """
    kv = config.kv
    longest = [(longest_request(trace), int(trace.output_tokens.max(initial=1))) for trace in traces] or [(1, 1)]
    request, answer = (_power_of_two(max(lengths)) for lengths in zip(*longest, strict=True))
    sized = KVConfig(
        block_size=kv.block_size,
        num_blocks=kv.num_blocks or config.gpu.num_blocks(kv.block_size),
        max_model_len=kv.max_model_len or min(request, config.gpu.model.max_position_embeddings),
    )
    return Limits(sized, answer)


def _power_of_two(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()


def longest_request(trace: Trace) -> int:
    """Tokens of a trace's longest request, its answer as long as its client allows."""
    outputs = trace.output_tokens if trace.max_output_tokens is None else trace.max_output_tokens
    return int(np.max(trace.input_tokens + outputs, initial=1))


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
        Its step time, lookahead and promises.
    policy : PolicyTable
        Which policy.
    trace : Trace
        Who arrives.
    limits : Limits
        As `limits_for` settles them.
    step_by_step, iterations, progress
        As in `busdoor.simulate.simulate`.
    meta : dict, optional
        What else to note.

    Returns
    -------
    Result
        Its meta has the configuration, from which the run can be repeated.
    """
    policy = policy.capped(limits.max_output_tokens)
    noted = {
        "policy": policy.label,
        "policy_config": policy.to_dict(),
        "max_model_len": limits.kv.max_model_len,
        "gpu": config.gpu.name.name,
        "model": config.gpu.model.name,
        "tp": config.gpu.tp,
        "seed": config.seed,
        "slo": config.slo.per_request_s,
        "config": config.to_dict() | {"policy": [policy.to_dict()]},
    }
    return simulate(
        trace,
        policy.build(limits.kv, trace),
        config.step_time,
        lookahead=config.lookahead,
        step_by_step=step_by_step,
        iterations=iterations,
        meta=noted | (meta or {}),
        progress=progress,
    )
