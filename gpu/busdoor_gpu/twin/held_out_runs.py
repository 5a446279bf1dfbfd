"""The machine of a twin, and the held-out runs that the twin is compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import groupby
from math import ceil, inf
from typing import Any

import numpy as np

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime
from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.device import describe_device
from busdoor_gpu.engine.model import Model
from busdoor_gpu.replay.clocks import ClockName
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_cases import HELD_OUT, SIZED
from busdoor_workloads import Trace, Workload
from busdoor_workloads.arrivals import Burst, Poisson
from busdoor_workloads.lengths import LogNormal

PROFILE_SHARE = 0.4  # of the time for measuring; the replays share the rest
# Means of the lengths as shares of the longest request, and their spread: the median of a lognormal
# distribution of σ ≈ 1, as in chats, is 0.6 of the mean. Prompts are cut at half of the longest
# request, answers at a quarter.
_INPUT_SHARE, _OUTPUT_SHARE, _MEDIAN_SHARE = 1 / 8, 1 / 16, 0.6
_FEWEST, _MOST = 32, 5000  # requests of a trace: fewer have no tail, more only cost time


@dataclass(frozen=True)
class Machine:
    """A machine that gets a twin; clock, lookahead and cuda_graphs are as for `replay`."""

    model: Model
    backend: Backend
    limits: GridLimits
    clock: ClockName
    lookahead: int = 1
    cuda_graphs: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """Options that profile and replay share."""
        return {"clock": self.clock, "lookahead": self.lookahead, "cuda_graphs": self.cuda_graphs}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the twin, as its folder keeps them."""
        own = {
            "model": self.model.config.shape.name,
            "dtype": str(self.model.dtype),
            "backend": self.backend.name,
            # None, as in folders of before, where it is the model's own
            "kv_dtype": self.model.kv_format,
        }
        return {
            **own,
            "device": describe_device(self.model.device)["name"],
            **self.options,
            **asdict(self.limits),
        }

    def policy_fields(self, name: str) -> dict[str, Any]:
        """Return the settings of a policy under these limits."""
        limits = self.limits
        if name == "static":
            return {"name": name, "max_num_seqs": limits.max_num_seqs}
        return {
            "name": name,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
        }

    def policy(self, name: str, trace: Trace) -> Policy:
        """Build a fresh scheduler."""
        built: Policy = policy_config(**self.policy_fields(name)).build(
            memory_for(name, self.limits), trace
        )
        return built


def memory_for(policy: str, limits: GridLimits, share: float = 1.0) -> KVConfig:
    """Return a share of the blocks; contiguous policies leave one block free per slot."""
    spare = limits.max_num_seqs if policy in ("static", "orca") else 0
    return KVConfig(
        num_blocks=int(share * limits.num_blocks) - spare,
        block_size=limits.block_size,
        max_model_len=limits.max_model_len,
    )


def arriving(trace: Trace, request_rate: float, seed: int) -> Trace:
    """Return a trace's requests with Poisson arrivals at a given rate."""
    arrivals = Poisson(request_rate=request_rate, normalize_duration=True)
    return trace.with_arrivals(arrivals.times(len(trace), np.random.default_rng([seed, 1])))


@dataclass(frozen=True)
class Run:
    """A trace to replay under a policy."""

    trace: Trace
    policy: str

    @property
    def name(self) -> str:
        """Name of its folder.

        >>> Run(Trace(arrival_s=[0], input_tokens=[1], output_tokens=[1], name="burst"), "vllm").name
        'burst-vllm'
        """
        return f"{self.trace.name}-{self.policy}"


def held_out_runs(
    machine: Machine, step_time: StepTime, budget_s: float, seed: int = 0
) -> list[Run]:
    """Choose held-out runs: a burst, open arrivals at several loads, static if it keeps up.

    The machine's capacity follows from the calibration's step time; `budget_s` is for profile and
    replays together. Runs of the same trace follow each other; all take about as long.
    """
    cases = [case for case in HELD_OUT if case.lengths == SIZED]
    each_s = (1 - PROFILE_SHARE) * budget_s / len(cases)
    runs: list[Run] = []
    groups = groupby(cases, lambda case: (case.bound or case.policy, case.load))
    for number, ((bound, load), own) in enumerate(groups):
        trace = _loaded(machine, step_time, bound, load, each_s, seed + 1 + number)
        if any(run.trace.name == trace.name for run in runs):  # rates that differ in later digits
            trace = replace(trace, name=f"{trace.name}_{number}")
        runs += [Run(trace, case.policy) for case in own]
    return runs


def _loaded(
    machine: Machine, step_time: StepTime, bound: str, load: float, each_s: float, seed: int
) -> Trace:
    """Draw a trace of a given load on a policy, which takes about `each_s` seconds of the clock."""

    def carried_rps(lengths: Trace) -> float:
        return machine.policy(bound, lengths).capacity_rps(lengths, step_time)

    # Wall time includes waiting for arrivals, processor time does not.
    pace = load if machine.clock == "wall" and load < 1 else 1.0
    num_requests = ceil(each_s * pace * carried_rps(_lengths(machine.limits, 1000, seed)))
    trace = _lengths(machine.limits, min(max(num_requests, _FEWEST), _MOST), seed)
    if load == inf:
        return replace(trace, name="burst")
    rate = load * carried_rps(trace)
    return replace(arriving(trace, rate, seed), name=f"rate_{rate:.3g}")


def _lengths(limits: GridLimits, num_requests: int, seed: int) -> Trace:
    """Draw requests that arrive at once, lengths spread as in chats, scaled to the longest."""
    longest = limits.max_model_len

    def lengths(mean: float, most: int) -> LogNormal:
        return LogNormal(mean=mean, median=_MEDIAN_SHARE * mean, min=1, max=most)

    workload = Workload(
        input_tokens=lengths(_INPUT_SHARE * longest, longest // 2),
        output_tokens=lengths(_OUTPUT_SHARE * longest, longest // 4),
        arrival=Burst(),
    )
    trace = workload.generate(seed, num_requests=num_requests)
    return replace(trace, max_output_tokens=np.full(num_requests, longest // 4))
