"""What a twin is made of and held against: the machine, and traces drawn to its size that its profile has not seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any

import numpy as np

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime
from busdoor.theory.load import capacity_rps
from busdoor_gpu.backend import Backend
from busdoor_gpu.clocks import ClockName
from busdoor_gpu.device import describe_device
from busdoor_gpu.grid import GridLimits
from busdoor_gpu.model import Model
from busdoor_workloads import Trace, Workload
from busdoor_workloads.arrivals import Burst, Poisson
from busdoor_workloads.lengths import LogNormal

# Of the time for measuring, what the profile gets; the replays share the rest.
PROFILE_SHARE = 0.4
_BOTH = ("vllm", "static")
# What is replayed: the load, of what the policy named first can carry (infinite: all at once), and under which
# policies. Static batching only where it can keep up; continuous batching up to the edge of saturation.
_CASES: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("static", inf, _BOTH),
    ("static", 0.4, _BOTH),
    ("static", 0.75, _BOTH),
    ("vllm", 0.5, ("vllm",)),
    ("vllm", 0.75, ("vllm",)),
    ("vllm", 0.9, ("vllm",)),
)
# Means of the lengths, in shares of the longest request, and their spread: the median of a lognormal law of σ ≈ 1, as
# chats have it, is 0.6 of the mean. Prompts are cut at half of the longest request, answers at a quarter.
_INPUT_SHARE, _OUTPUT_SHARE, _MEDIAN_SHARE = 1 / 8, 1 / 16, 0.6
_FEWEST, _MOST = 32, 5000  # requests of a trace: fewer say nothing of a tail, more only cost time


@dataclass(frozen=True)
class Machine:
    """What is to get a twin.

    Attributes
    ----------
    model, backend : Model, Backend
        What runs, and by which operations.
    limits : GridLimits
        A scheduler's limits, and the KV memory.
    clock : {"wall", "cpu", "paced"}
        As `replay` takes it.
    lookahead, cuda_graphs
        As `replay` takes them.
    """

    model: Model
    backend: Backend
    limits: GridLimits
    clock: ClockName
    lookahead: int = 1
    cuda_graphs: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """What profile and replay have in common."""
        return {"clock": self.clock, "lookahead": self.lookahead, "cuda_graphs": self.cuda_graphs}

    @property
    def settings(self) -> dict[str, Any]:
        """What a twin is of, as its folder keeps it."""
        what = {"model": self.model.config.shape.name, "dtype": str(self.model.dtype), "backend": self.backend.name}
        return {**what, "device": describe_device(self.model.device)["name"], **self.options, **asdict(self.limits)}

    def policy_fields(self, name: str) -> dict[str, Any]:
        """Settings of a policy under these limits."""
        limits = self.limits
        if name == "static":
            return {"name": name, "max_num_seqs": limits.max_num_seqs}
        return {
            "name": name,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
        }

    def policy(self, name: str, trace: Trace) -> Policy:
        """Make a fresh scheduler."""
        built: Policy = policy_config(**self.policy_fields(name)).build(memory_for(name, self.limits), trace)
        return built


def memory_for(policy: str, limits: GridLimits, share: float = 1.0) -> KVConfig:
    """Give a policy its share of the machine's blocks; ranges, which begin anywhere, leave a block for each slot."""
    spare = limits.max_num_seqs if policy in ("static", "orca") else 0
    return KVConfig(
        num_blocks=int(share * limits.num_blocks) - spare,
        block_size=limits.block_size,
        max_model_len=limits.max_model_len,
    )


def arriving(trace: Trace, request_rate: float, seed: int) -> Trace:
    """Let a trace's requests come at random, and as many of them per second as is asked for."""
    arrivals = Poisson(request_rate=request_rate, normalize_duration=True)
    return trace.with_arrivals(arrivals.times(len(trace), np.random.default_rng([seed, 1])))


@dataclass(frozen=True)
class Run:
    """A trace to be replayed under a policy."""

    trace: Trace
    policy: str

    @property
    def name(self) -> str:
        """What its folder is called.

        Examples
        --------
        >>> Run(Trace(arrival_s=[0], input_tokens=[1], output_tokens=[1], name="burst"), "vllm").name
        'burst-vllm'
        """
        return f"{self.trace.name}-{self.policy}"


def unseen_runs(machine: Machine, step_time: StepTime, budget_s: float, seed: int = 0) -> list[Run]:
    """Choose what to replay: a burst and open arrivals at several loads, static batching where it can keep up.

    Parameters
    ----------
    machine : Machine
        What will run them.
    step_time : StepTime
        Of the calibration; it tells what the machine can carry.
    budget_s : float
        Seconds for profile and replays together.
    seed : int
        Of lengths and arrivals.

    Returns
    -------
    list of Run
        Of the same trace one after the other; each takes about as long as the others.
    """
    each_s = (1 - PROFILE_SHARE) * budget_s / sum(len(policies) for _, _, policies in _CASES)
    runs: list[Run] = []
    for number, (bound, load, policies) in enumerate(_CASES):
        trace = _loaded(machine, step_time, bound, load, each_s, seed + 1 + number)
        if any(run.trace.name == trace.name for run in runs):  # rates that differ in later digits
            trace = replace(trace, name=f"{trace.name}_{number}")
        runs += [Run(trace, policy) for policy in policies]
    return runs


def _loaded(machine: Machine, step_time: StepTime, bound: str, load: float, each_s: float, seed: int) -> Trace:
    """Draw a trace whose load on a policy is given, and which takes about so many seconds of the clock."""

    def carried_rps(lengths: Trace) -> float:
        return capacity_rps(lengths, machine.policy(bound, lengths), step_time)

    # The wall's clock waits for arrivals, that of the processor only works.
    pace = load if machine.clock == "wall" and load < 1 else 1.0
    num_requests = ceil(each_s * pace * carried_rps(_lengths(machine.limits, 1000, seed)))
    trace = _lengths(machine.limits, min(max(num_requests, _FEWEST), _MOST), seed)
    if load == inf:
        return replace(trace, name="burst")
    rate = load * carried_rps(trace)
    return replace(arriving(trace, rate, seed), name=f"rate_{rate:.3g}")


def _lengths(limits: GridLimits, num_requests: int, seed: int) -> Trace:
    """Draw requests, all at once, whose lengths spread as chats' do, in the machine's size."""
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
