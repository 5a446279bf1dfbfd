"""Flags that commands share: cyclopts puts these classes' fields among a command's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from busdoor.results.result import Result

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

_PYTHON_NAMES = {"from_format": "format"}


@Parameter(name="*")
@dataclass(frozen=True)
class FileFlags:
    """How a trace file is written, where that is not in the file.

    Parameters
    ----------
    from_format
        Format of the trace file; by default recognized from its first record.
    columns
        For a file of no known format, our name of a column and the file's: --columns.input_tokens
        prompt_len
    time_unit
        Unit of the file's arrival times; by default the format's own.
    block_size
        Tokens that one of the file's hash ids stands for.
    run
        Which result of a vLLM result file to which several were appended; 1 is the first.
    skip_bad
        Leave bad rows of the file out and count them.
    max_bytes
        Largest file to read, in bytes after decompression.
    """

    from_format: Annotated[str | None, Parameter(name="--from")] = None
    columns: dict[str, str] = field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "ns", "datetime"] | None = None
    block_size: int | None = None
    run: int | None = None
    skip_bad: bool = False
    max_bytes: int | None = None

    def given(self) -> dict[str, Any]:
        """Return what differs from its default, under the names of `read_trace`."""
        empty = type(self)()
        return {
            _PYTHON_NAMES.get(one.name, one.name): value
            for one in fields(self)
            if (value := getattr(self, one.name)) != getattr(empty, one.name)
        }


@Parameter(name="*")
@dataclass(frozen=True)
class ReadFlags(FileFlags):
    """Which part of a trace file is read, and how: flags of trace describe and trace convert.

    Parameters
    ----------
    time_scale
        Stretch time: 2 halves the rate.
    start_s
        Start of the part to read, in seconds after the start of the file.
    duration_s
        Length of the part to read, in seconds.
    max_requests
        Number of requests to take from the start of that part.
    max_total_tokens
        Longest request, prompt and answer together.
    too_long
        Leave longer requests out, or cut them.
    model
        Take only this model's requests (BurstGPT).
    """

    time_scale: float = 1.0
    start_s: float = 0.0
    duration_s: float = float("inf")
    max_requests: int | None = None
    max_total_tokens: int | None = None
    too_long: Literal["drop", "clip"] = "drop"
    model: str | None = None


def flag_of(option: str) -> str:
    """Return the flag of an option of `read_trace`.

    Examples
    --------
    >>> flag_of("time_unit"), flag_of("format")
    ('--time-unit', '--from')
    """
    return "--from" if option == "format" else f"--{option.replace('_', '-')}"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerFlags:
    """What serves the requests: flags of compare, capacity, simulate and serve.

    Parameters
    ----------
    gpu
        GPU of the catalogue: h100, a100-80gb, l40s ...
    model
        Model of the catalogue: llama-3.1-8b, qwen3-14b ...
    step_time
        A calibration: the file of busdoor calibrate, or the name of one that busdoor ships;
        roofline; or operators, from tables measured on the GPU.
    engine
        The engine whose host, front end, limits and memory share are simulated: vllm (the default),
        trtllm, sglang, tgi ...
    tp
        GPUs that share each layer.
    pp
        Stages of layers, each of tp GPUs; with --step-time operators.
    dp
        Groups of tp GPUs that share the requests; with --step-time operators.
    ep
        Groups that share the experts, of tp x dp GPUs in all; with --step-time operators.
    config
        TOML file with [workload], [policy], [kv], [step_time], [gpu] ...; flags override it.
    lookahead
        1: the next batch is scheduled while the previous one still runs; 0: when it has ended. By
        default the engine's, else 1 with vllm.
    """

    gpu: str | None = None
    model: str | None = None
    step_time: str | None = None
    engine: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    config: Path | None = None
    lookahead: Literal[0, 1] | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClientFlags:
    """How requests are drawn, read and given up: flags of compare, capacity, simulate and observe.

    Parameters
    ----------
    seed
        Seed of every random stream: the same seed gives the same numbers.
    timeout
        Clients give up after this time: 30, 30s, 2min.
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
        A profile (azure-conv, azure-code ...) or a trace file.
    replications
        Draws of the workload, the same for every policy and rate.
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
        Servers of this kind, behind a router.
    router
        How requests are assigned to them: round_robin, random, least_outstanding (the default),
        shortest_queue, power_of_two, least_kv, session_affinity, prefix_affinity; fields after
        commas.
    """

    rate: Rate = None
    replicas: int | None = None
    router: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MeasuredFlags:
    """What measured runs do not contain: flags of calibrate and validate.

    Parameters
    ----------
    policy
        How the runs were scheduled, where they do not contain it:
        vllm,max_num_seqs=64,num_blocks=4096,block_size=16, max_model_len=8192.
    run
        Which run of a file that holds several (results of vLLM or SGLang that were appended,
        benchmarks of guidellm); 1 is the first.
    """

    policy: str | None = None
    run: int | None = None

    def read(self, measured: Sequence[Path]) -> list[Result]:
        """Read measured runs, and print what their readers left out or assumed."""
        from busdoor.calibration import load_measured
        from busdoor.cli.output import print_notes

        results = [load_measured(path, run=self.run) for path in measured]
        print_notes(note for result in results for note in result.meta.get("notes", ()))
        return results

    @property
    def scheduling(self) -> Mapping[str, Any] | None:
        """The policy as a table, with everything that a simulation of the runs needs."""
        from busdoor.calibration.teacher_forcing import check_policy
        from busdoor.config import parse_policy

        return check_policy(parse_policy(self.policy)) if self.policy else None


def values(*groups: Any) -> dict[str, Any]:
    """Return the flags of such classes by name.

    Examples
    --------
    >>> values(DrawFlags(workload="azure-conv"), ClusterFlags(rate=4.0))
    {'workload': 'azure-conv', 'replications': None, 'rate': 4.0, 'replicas': None, 'router': None}
    """
    return {one.name: getattr(group, one.name) for group in groups for one in fields(group)}
