"""Flags that commands share: cyclopts puts these classes' fields among a command's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from busdoor.cli.file_flags import FileFlags

Rate = Annotated[
    float | None,
    Parameter(
        name=("--rate", "--request-rate"),
        help="Requests per second, in place of the workload's own arrivals; inf for all at once.",
    ),
]
Overwrite = Annotated[
    bool, Parameter(help="Replace everything that an earlier study left in the folder of --out.")
]
Json = Annotated[
    bool,
    Parameter(help="Print the numbers as one line of JSON; tables and notes then go to stderr."),
]
Perfetto = Annotated[
    Path | None, Parameter(help="File for a timeline to load in https://ui.perfetto.dev.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """What serves the requests, beside the GPUs: flags of capacity and of `ServerFlags`.

    Parameters
    ----------
    model
        Model: llama-3.1-8b (the default), qwen3-14b ..., or a Hugging Face config.json or its
        folder.
    step_time
        roofline (the default); a calibration: the file of busdoor calibrate, or the name of one
        that busdoor ships; or operators, from tables measured on the GPU.
    engine
        The engine whose host, front end, limits and memory share are simulated: vllm (the default),
        trtllm, sglang, tgi ...
    pp
        Stages of layers, each of tp GPUs, with --step-time operators; 1 unless given.
    dp
        Groups of tp GPUs that share the requests, with --step-time operators; 1 unless given.
    ep
        Groups that share the experts, of tp x dp GPUs in all, with --step-time operators; 1 unless
        given.
    config
        TOML file with [workload], [policy], [kv], [step_time], [gpu] ...; flags override it.
    lookahead
        1: the next batch is scheduled while the previous one still runs; 0: when it has ended. By
        default the engine's, else 1 with vllm.
    """

    model: str | None = None
    step_time: str | None = None
    engine: str | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    config: Path | None = None
    lookahead: Literal[0, 1] | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerFlags(EngineFlags):
    """What serves the requests: flags of compare, simulate and serve.

    Parameters
    ----------
    gpu
        GPU of the catalogue: h100 (the default), a100-80gb, l40s ...
    tp
        GPUs that share each layer; 1 unless given.
    """

    gpu: str | None = None
    tp: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HardwareFlags:
    """Which servers are compared: flags of capacity, one row for each.

    Parameters
    ----------
    gpu
        GPU of the catalogue, with its price or other fields of [gpu] after commas; a row for each:
        --gpu l40s --gpu h100,price_per_hour=2.5. By default one row: h100.
    tp
        GPUs that share each layer; a row for each: --tp 1 --tp 2. 1 unless given.
    replicas
        Servers of this kind behind a router; the rates are then of all together. 1 unless given.
    router
        How requests are assigned to them: round_robin, least_outstanding (the default),
        power_of_two ...
    """

    gpu: list[str] | None = None
    tp: list[int] | None = None
    replicas: int | None = None
    router: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClientFlags:
    """How requests are drawn, read and given up: flags of compare, capacity, simulate and observe.

    Parameters
    ----------
    seed
        Seed of every random stream: the same seed gives the same numbers; 0 unless given.
    timeout
        Clients give up after this time: 30, 30s, 2min; never unless given.
    """

    seed: int | None = None
    timeout: str | None = None
    reading: FileFlags = FileFlags()  # frozen


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DrawFlags:
    """Which requests a study draws: flags of compare and capacity.

    Parameters
    ----------
    workload
        A profile (azure-conv, the default, azure-code ...) or a trace file.
    replications
        Draws of the workload, the same for every policy and rate; 5 unless given, for capacity 8.
    """

    workload: str | None = None
    replications: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """At which rate requests arrive, and at how many servers: flags of compare and simulate.

    Parameters
    ----------
    replicas
        Servers of this kind, behind a router; 1 unless given.
    router
        How requests are assigned to them: round_robin, random, least_outstanding (the default),
        shortest_queue, power_of_two, least_kv, session_affinity, session_hash, prefix_affinity; fields
        after commas.
    """

    rate: Rate = None
    replicas: int | None = None
    router: str | None = None


def values(*groups: Any) -> dict[str, Any]:
    """Return the flags of such classes by name.

    >>> values(DrawFlags(workload="azure-conv"), ClusterFlags(rate=4.0))
    {'workload': 'azure-conv', 'replications': None, 'rate': 4.0, 'replicas': None, 'router': None}
    """
    return {one.name: getattr(group, one.name) for group in groups for one in fields(group)}
