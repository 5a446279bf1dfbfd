"""Cases of the campaign: public profiles' lengths at several loads, each under a policy.

`busdoor twin` draws traces in a machine's size in a few minutes; this is the longer list behind
`gpu/results`: chats at four loads from half capacity to past the knee, long prompts with short
answers, two kinds of requests in one trace, bursts; static, reserving and continuous batching,
whole and chunked prompts; and KV memory so small that it preempts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

import numpy as np
from benchmarks.gpu.steady_start import steady_start

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_cases import HELD_OUT, SIZED, Case
from busdoor_gpu.twin.held_out_runs import arriving, memory_for
from busdoor_workloads import Trace, resolve

_FEWEST = 24  # requests of a trace
_WARM = 5  # times a steady run's own seconds are simulated before it: 100 s after 500 s
# Rows of a static batch: with the longest chats their prefill takes one second, not ten.
_STATIC_ROWS = 32

CASES = tuple(case for case in HELD_OUT if case.lengths != SIZED)


@dataclass(frozen=True)
class Plan:
    """A case on a machine: a trace, and the settings of its policy.

    Attributes
    ----------
    trace : Trace
        Requests that fit the machine; it has the case's name.
    fields : dict
        Settings of the policy, including its name.
    kv : KVConfig
        Its KV memory.
    """

    trace: Trace
    fields: dict[str, Any]
    kv: KVConfig

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.trace.name

    def policy(self) -> Policy:
        """Build a fresh scheduler."""
        built: Policy = policy_config(**self.fields).build(self.kv, self.trace)
        return built


def plan(
    case: Case, limits: GridLimits, step_time: StepTime, seconds: float, seed: int, shrink: int = 1
) -> Plan:
    """Draw a case's trace so that it takes about `seconds`.

    Parameters
    ----------
    case : Case
        The case.
    limits : GridLimits
        Limits of the machine.
    step_time : StepTime
        Of the calibration; the machine's capacity follows from it.
    seconds : float
        Seconds of the machine's clock.
    seed : int
        Seed of lengths and arrivals.
    shrink : int
        Divides all lengths, for a rehearsal on a small machine.

    Examples
    --------
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> limits = GridLimits(16, 256, 512, 1024)
    >>> made = plan(CASES[0], limits, LinearStepTime(0.01, 1e-4), 60, seed=0, shrink=16)
    >>> made.fields["name"], bool(20 < made.trace.arrival_s[-1] < 100)
    ('vllm', True)
    """
    lengths = _LENGTHS.get(case.lengths, _of_workload)(case.lengths, limits, shrink, seed)
    fields, kv = (
        _fields(case.policy, case.fields, limits),
        memory_for(case.policy, limits, case.blocks_share),
    )
    bound = policy_config(**_fields(case.bound or case.policy, {}, limits))

    def carried_rps(trace: Trace) -> float:
        return bound.build(kv, trace).capacity_rps(trace, step_time)

    pace = min(case.load, 1.0)
    warm_s = _WARM * seconds if case.steady else 0.0
    count = max(_FEWEST, ceil((seconds + warm_s) * pace * carried_rps(lengths)))
    trace = _rows(lengths, count, seed)
    if case.load < inf:
        trace = arriving(trace, case.load * carried_rps(trace), seed)
    made = Plan(replace(trace, name=case.name), fields, kv)
    if not case.steady:
        return made
    begun = steady_start(
        made.trace, lambda own: replace(made, trace=own).policy(), step_time, warm_s
    )
    return replace(made, trace=begun)


def _rows(lengths: Trace, count: int, seed: int) -> Trace:
    """Return the first requests; if there are too few, draw among all of them."""
    if count <= len(lengths):
        return lengths.select(np.arange(count))
    return lengths.select(np.random.default_rng([seed, 2]).integers(len(lengths), size=count))


def _fields(policy: str, fields: Mapping[str, Any], limits: GridLimits) -> dict[str, Any]:
    if policy == "static":
        rows = min(_STATIC_ROWS, limits.max_num_seqs)
        return {"name": policy, "max_num_seqs": rows, **fields}
    if policy == "orca":
        return {"name": policy, "max_num_seqs": limits.max_num_seqs, **fields}
    whole = not fields.get("chunked_prefill", True)  # the longest prompt has to fit the budget
    budget = max(limits.max_num_batched_tokens, limits.max_model_len if whole else 0)
    return {
        "name": policy,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": budget,
        **fields,
    }


_DRAWN = 4000  # requests drawn; a trace is the first of them


def _of_workload(name: str, limits: GridLimits, shrink: int, seed: int) -> Trace:
    """Draw a workload's requests, all at once, without those that are too long."""
    drawn = resolve(name).generate(seed, num_requests=_DRAWN)
    return _fitting(drawn.input_tokens // shrink, drawn.output_tokens // shrink, limits)


def _bimodal(name: str, limits: GridLimits, shrink: int, seed: int) -> Trace:
    """Draw two kinds: two in three are short with short answers; the third is long in both."""
    long = np.random.default_rng(seed).random(_DRAWN) < 1 / 3
    return _fitting(np.where(long, 2048, 128) // shrink, np.where(long, 512, 32) // shrink, limits)


_LENGTHS: dict[str, Callable[[str, GridLimits, int, int], Trace]] = {"bimodal": _bimodal}


def _fitting(inputs: np.ndarray, outputs: np.ndarray, limits: GridLimits) -> Trace:
    inputs, outputs = np.maximum(inputs, 1), np.maximum(outputs, 2)
    fits = inputs + outputs <= limits.max_model_len
    return Trace(
        arrival_s=np.zeros(int(fits.sum())), input_tokens=inputs[fits], output_tokens=outputs[fits]
    )


def plans(
    limits: GridLimits,
    step_time: StepTime,
    seconds: float,
    seed: int = 0,
    shrink: int = 1,
    only: Collection[str] = (),
) -> Iterator[Plan]:
    """Draw every case, or `only` some; same lengths and load get the same trace."""
    for case in CASES:
        if only and case.name not in only:
            continue
        number = next(
            n
            for n, other in enumerate(CASES)
            if (other.lengths, other.load) == (case.lengths, case.load)
        )
        yield plan(case, limits, step_time, seconds, seed + 1 + number, shrink)
