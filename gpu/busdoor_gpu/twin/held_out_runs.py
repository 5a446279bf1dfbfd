"""What a twin is made of and held against: the machine, and traces drawn to its size that its profile has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
from busdoor_workloads import Trace, Workload
from busdoor_workloads.arrivals import Burst, Poisson
from busdoor_workloads.lengths import LogNormal

# Of the time for measuring, what the profile gets; the replays share the rest.
PROFILE_SHARE = 0.4
SIZED = "sized"  # lengths drawn to the machine's size, as `busdoor twin` does in a few minutes
_TIGHT_SHARE = 0.1  # of the measured blocks, where requests are to be preempted


@dataclass(frozen=True)
class Case:
    """One run that a calibration has not seen: which lengths, at which load, under which policy.

    Attributes
    ----------
    name : str
        Of the run's folder; of lengths that are sized to the machine, only what tells it from the others.
    lengths : str
        "sized", "bimodal", or a workload that `busdoor_workloads.resolve` knows.
    load : float
        Of what the policy (for a static batch and its counterpart: the static one) can carry; infinite: all at once.
    policy : str
        Its name.
    fields : mapping
        Its settings, beside the machine's limits.
    bound : str
        The policy whose capacity `load` is of; by default `policy`.
    blocks_share : float
        Of the machine's KV blocks.
    """

    name: str
    lengths: str
    load: float
    policy: str = "vllm"
    fields: Mapping[str, Any] = field(default_factory=dict)
    bound: str = ""
    blocks_share: float = 1.0


# Every held-out replay. Those of `busdoor twin` first: static batching only where it can keep up, continuous batching
# up to the edge of saturation. Then the longer list behind gpu/results (`python -m benchmarks.gpu.campaign`).
HELD_OUT = (
    Case("burst-vllm", SIZED, inf, bound="static"),
    Case("burst-static", SIZED, inf, "static"),
    Case("0.40-vllm", SIZED, 0.4, bound="static"),
    Case("0.40-static", SIZED, 0.4, "static"),
    Case("0.75-vllm", SIZED, 0.75, bound="static"),
    Case("0.75-static", SIZED, 0.75, "static"),
    Case("0.50", SIZED, 0.5),
    Case("0.75", SIZED, 0.75),
    Case("0.90", SIZED, 0.9),
    Case("azure-conv-0.50", "azure-conv", 0.5),
    Case("azure-conv-0.75", "azure-conv", 0.75),
    Case("azure-conv-0.90", "azure-conv", 0.9),
    Case("azure-conv-1.15", "azure-conv", 1.15),
    Case("anyscale-burst-static", "anyscale_512", inf, "static", bound="static"),
    Case("anyscale-burst-vllm", "anyscale_512", inf, bound="static"),
    Case("anyscale-0.60-static", "anyscale_512", 0.6, "static", bound="static"),
    Case("anyscale-0.60-vllm", "anyscale_512", 0.6, bound="static"),
    Case("azure-conv-tight", "azure-conv", inf, blocks_share=_TIGHT_SHARE),
    Case("azure-code-0.70", "azure-code", 0.7),
    Case("bimodal-burst", "bimodal", inf),
    Case("azure-conv-0.75-prefill-first", "azure-conv", 0.75, "prefill_first", bound="vllm"),
    Case("azure-conv-0.75-whole-prompts", "azure-conv", 0.75, fields={"chunked_prefill": False}),
    Case("anyscale-burst-orca", "anyscale_512", inf, "orca", bound="static"),
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
    """Return a policy's share of the machine's blocks; ranges, which begin anywhere, leave a block for each slot."""
    spare = limits.max_num_seqs if policy in ("static", "orca") else 0
    return KVConfig(
        num_blocks=int(share * limits.num_blocks) - spare,
        block_size=limits.block_size,
        max_model_len=limits.max_model_len,
    )


def arriving(trace: Trace, request_rate: float, seed: int) -> Trace:
    """Return a trace's requests with Poisson arrivals at the rate that is asked for."""
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


def _loaded(machine: Machine, step_time: StepTime, bound: str, load: float, each_s: float, seed: int) -> Trace:
    """Draw a trace whose load on a policy is given, and which takes about so many seconds of the clock."""

    def carried_rps(lengths: Trace) -> float:
        return machine.policy(bound, lengths).capacity_rps(lengths, step_time)

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
