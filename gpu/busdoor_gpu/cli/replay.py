"""`busdoor replay`: a trace on real hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.cli.file_flags import FileFlags
from busdoor.cli.flags import Overwrite, Rate
from busdoor_gpu.cli.flags import MachineFlags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from busdoor.config import Config, PolicyTable
    from busdoor.config.limits import Limits
    from busdoor.policies.base import Policy
    from busdoor.results.result import Result
    from busdoor_gpu.engine.backend import Backend
    from busdoor_gpu.engine.model import Model
    from busdoor_gpu.engine.model_config import ModelConfig
    from busdoor_gpu.engine.place import Place
    from busdoor_workloads import Trace


def replay(
    trace: str,
    /,
    *,
    config: Path | None = None,
    machine: MachineFlags = MachineFlags(),
    out: Path | None = None,
    overwrite: Overwrite = False,
    policy: list[str] | None = None,
    rate: Rate = None,
    time_scale: float | None = None,
    concurrency: int | None = None,
    num_requests: int | None = None,
    seed: int | None = None,
    reading: FileFlags = FileFlags(),
) -> int:
    """Serve a trace on this machine, and write what happened in the simulator's format.

    Prompts are random tokens of the trace's lengths, answers have the trace's lengths, and the
    weights are random unless the model is a checkpoint's folder, because times do not depend on the
    text. The folder has the tables requests, iterations (with device_s and host_s) and stays,
    summary.json and meta.json; with several policies, a folder for each.

    Parameters
    ----------
    trace
        A trace file (JSONL, CSV or a public format), or a profile to draw from.
    config
        TOML file with [policy], [kv] ...; flags override it.
    out
        Folder for the result; by default a new busdoor-replay-001.
    policy
        Policy, with fields after commas: vllm,max_num_seqs=64. By default vllm.
    time_scale
        Stretch the trace's time: 2 halves the rate; 1 unless given.
    concurrency
        Closed loop: this many users, each of which sends its next request when the last one is
        answered.
    num_requests
        Number of requests to take from the start of the trace; all unless given.
    seed
        Seed of everything that is drawn; 0 unless given.
    """
    from busdoor.cli.render import print_summary
    from busdoor.core.study_folder import study_folder
    from busdoor.results.result import write_result
    from busdoor_gpu.cli.folder import broken_off, note_done, places
    from busdoor_gpu.cli.machine import place_of
    from busdoor_gpu.engine.slots import EngineError
    from busdoor_gpu.replay.replay import ReplayError

    place = place_of(machine, _configured_model(config) if machine.model is None else None)
    settled = _configured(
        config,
        place,
        policy=policy,
        workload=trace,
        rate=rate,
        num_requests=num_requests,
        seed=seed,
        reading=reading,
        lookahead=machine.lookahead,
    )
    served = _served(settled, time_scale, concurrency)
    _check_memory(settled, served, place)
    options: dict[str, Any] = {
        "lookahead": settled.lookahead,
        "clock": machine.clock or "wall",
        "cuda_graphs": not machine.eager,
    }
    with study_folder(out, "replay", overwrite) as study:
        own, broken = places(settled, study.part), None
        results: dict[str, Result] = {}
        try:
            for label, result in _replayed(settled, served, place.load(settled.seed), options):
                results[label] = result
                write_result(result, own[label])
                study.kept = True
            note_done(study.part, settled, results)
        except ReplayError as error:
            broken = error
            write_result(error.result, own[str(error.result.meta["policy"])])
        except EngineError as error:
            raise ValueError(str(error)) from error
        folder = study.publish()
    for label, result in results.items():
        print_summary(result)
        print(f"Result: {folder / own[label].name if len(own) > 1 else folder}")
    return 0 if broken is None else broken_off(broken, f"what was measured so far is in {folder}")


def _replayed(
    settled: Config, served: Trace, machine: tuple[Model, Backend], options: Mapping[str, Any]
) -> Iterator[tuple[str, Result]]:
    """Replay the trace under one policy after the other."""
    from busdoor.cli.progress import progress_bar
    from busdoor_gpu.replay.replay import replay

    limits, measured = _limits(settled, served, *machine)
    for table in settled.policies:
        built = _build(table, limits, served, measured)
        with progress_bar(f"{table.label}: replaying {len(served):,} requests"):
            result = replay(served, built, *machine, meta=_meta(settled, table, limits), **options)
        yield table.label, result


def _configured_model(config: Path | None) -> ModelConfig | None:
    """Return the model that the configuration file names; None if it names none."""
    from busdoor.catalog import model
    from busdoor.core.toml import read_toml
    from busdoor_gpu.engine.model_config import ModelConfig, find_model

    document = None if config is None else read_toml(config)
    gpu = document.data.get("gpu") if document else None
    if document is None or not isinstance(gpu, Mapping) or "model" not in gpu:
        return None
    with document.blame("gpu"):
        named = gpu["model"]
        return find_model(named) if isinstance(named, str) else ModelConfig(model(named))


def _configured(config: Path | None, place: Place, **flags: Any) -> Config:
    """Read the configuration; a model outside the catalogue is added to it as a table."""
    from dataclasses import asdict

    from busdoor.catalog import model_names
    from busdoor.cli.from_flags import configured, overrides

    tables, shape = overrides(**flags), place.config.shape
    tables["gpu"] = {"model": shape.name if shape.name in model_names() else asdict(shape)}
    if place.kv_dtype != place.dtype:
        tables["gpu"]["kv_dtype"] = "fp8"
    settled = configured(config, tables, {"policy": "vllm", "engine": "busdoor", "lookahead": 1})
    if settled.gpu.kv_dtype == "fp8" and place.kv_dtype == place.dtype:
        raise ValueError('[gpu] kv_dtype = "fp8": give --kv-dtype fp8 for it, or leave it out')
    if settled.cluster is not None:
        raise ValueError(
            "[cluster]: a replay runs on one server, this machine; leave the table out"
        )
    return settled


def _served(settled: Config, time_scale: float | None, concurrency: int | None) -> Trace:
    """Draw or read the trace, and apply the flags about its arrivals."""
    from dataclasses import replace
    from math import inf

    trace = settled.workload.trace(settled.seed)
    for flag, value in {"--time-scale": time_scale, "--concurrency": concurrency}.items():
        if value is not None and not 0 < value < inf:
            raise ValueError(
                f"{flag} is {value}; it must be more than 0"
                + (", and finite" if value == inf else "")
            )
    if time_scale is not None:
        trace = trace.with_arrivals(trace.arrival_s * time_scale)
    if concurrency is not None:
        trace = replace(trace.with_arrivals(0 * trace.arrival_s), concurrency=concurrency)
    return trace


def _check_memory(settled: Config, trace: Trace, place: Place) -> None:
    """Raise ValueError if a CPU replay, or the configuration's blocks, exceed the memory."""
    from busdoor.config.limits import limits_for
    from busdoor_gpu.engine.footprint import sizes_of
    from busdoor_gpu.engine.kv_memory import NOT_MEASURED
    from busdoor_gpu.replay.replay import row_tokens

    if settled.kv.num_blocks is None:
        if not place.on_gpu:
            raise ValueError(NOT_MEASURED)
        return
    limits = limits_for(settled, [trace])
    for table in settled.policies:
        policy = _build(table, limits, trace, False)
        place.check(sizes_of(policy, row_tokens(policy, trace)))


def _limits(settled: Config, trace: Trace, model: Model, backend: Backend) -> tuple[Limits, bool]:
    """Return the limits, KV memory as configured or measured, and whether it was measured."""
    from dataclasses import replace

    from busdoor.config.limits import limits_for
    from busdoor_gpu.engine.kv_memory import measure_num_blocks

    limits = limits_for(settled, [trace])
    if settled.kv.num_blocks is not None:
        return limits, False
    kv, share = limits.kv, settled.gpu.gpu_memory_utilization
    blocks = measure_num_blocks(model, backend, kv.block_size, kv.max_model_len, share)
    return replace(limits, kv=replace(kv, num_blocks=blocks)), True


def _build(table: PolicyTable, limits: Limits, trace: Trace, measured: bool) -> Policy:
    """Build the policy; one without pages leaves a block free per slot, for ranges' starts."""
    from dataclasses import replace

    from busdoor.kv.paged import PagedKV

    table, kv = table.capped(limits.max_output_tokens), limits.kv
    policy = table.build(kv, trace)
    if measured and not isinstance(getattr(policy, "kv", None), PagedKV):
        policy = table.build(
            replace(kv, num_blocks=max(1, kv.num_blocks - policy.num_slots)), trace
        )
    return policy


def _meta(settled: Config, table: PolicyTable, limits: Limits) -> dict[str, Any]:
    return {
        "policy": table.label,
        "policy_config": table.to_dict(),
        "max_model_len": limits.kv.max_model_len,
        "seed": settled.seed,
        "slo": settled.slo.per_request_s,
        "config": settled.to_dict() | {"policy": [table.to_dict()]},
    }
