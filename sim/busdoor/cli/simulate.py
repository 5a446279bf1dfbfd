"""`busdoor simulate`: one policy on one trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from busdoor.cli.flags import ONE_GPU, ParallelFlags, Rate
from busdoor.cli.reading import AS_WRITTEN, FileFlags
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder
    from busdoor.results.result import Result

Flag = Parameter(negative="")


def simulate(
    trace: str,
    /,
    *,
    config: Path | None = None,
    out: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    policy: str | None = None,
    rate: Rate = None,
    num_requests: int | None = None,
    gpu: str | None = None,
    model: str | None = None,
    step_time: str | None = None,
    engine: str | None = None,
    parallel: ParallelFlags = ONE_GPU,
    replicas: int | None = None,
    router: str | None = None,
    seed: int | None = None,
    lookahead: Literal[0, 1] | None = None,
    timeout: str | None = None,
    reading: FileFlags = AS_WRITTEN,
    step_by_step: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
    perfetto: Path | None = None,
) -> int:
    """Run one policy on one trace, and write what happened to every request.

    The folder has requests.csv, whose row k is the trace's row k, iterations and stays in slots, summary.json,
    meta.json, from which the run can be repeated, and for a cluster replicas.csv, a row a server.

    Parameters
    ----------
    trace
        A trace file (JSONL, CSV or a public format), or a profile to draw from.
    config
        TOML file with [policy], [kv], [step_time], [gpu] ...; flags override it.
    out
        Folder for the result; by default a fresh busdoor-simulate-001.
    overwrite
        Replace whole what an earlier study left in the folder of --out.
    policy
        Policy, with fields after commas: vllm,max_num_seqs=64. Without any: vllm.
    rate
        Requests per second, in place of the trace's own arrivals; inf for all at once.
    num_requests
        Take the first so many requests.
    gpu
        GPU of the catalogue.
    model
        Model of the catalogue.
    step_time
        A calibration: the file of busdoor calibrate, or the name of one that was measured here; roofline;
        or operators, from tables measured on the GPU.
    engine
        Whose host and front end, limits and memory share: vllm (unless given), trtllm, sglang, tgi ...
    replicas
        Servers of this kind, behind a router.
    router
        Who sends each request to which of them: round_robin, random, least_outstanding (without any), shortest_queue,
        power_of_two, least_kv, session_affinity, prefix_affinity; fields after commas.
    seed
        Of what is drawn.
    lookahead
        1: the next batch is decided while the one before still runs; 0: at its end. Unset: the engine's, else 1 with
        vllm.
    timeout
        Clients give up after so long: 30, 30s, 2min.
    step_by_step
        Make every iteration an event of its own: the slow oracle, with the same results.
    json
        Print the summary as one line of JSON; tables and remarks then go to stderr.
    perfetto
        File for a timeline to load in https://ui.perfetto.dev.
    """
    from busdoor.cli.flags import configured, overrides
    from busdoor.cli.telling import telling
    from busdoor.core.study_folder import study_folder
    from busdoor.core.study_paths import check_file

    tables = overrides(
        policy=[policy] if policy else None, workload=trace, rate=rate, num_requests=num_requests, gpu=gpu,
        model=model, step_time=step_time, engine=engine, parallel=parallel, replicas=replicas, router=router, seed=seed,
        lookahead=lookahead, reading=reading,
        timeout=timeout,
    )  # fmt: skip
    settled = configured(config, tables, {"policy": "vllm"})
    if len(settled.policies) != 1:
        names = ", ".join(each.label for each in settled.policies)
        raise ValueError(
            f"simulate runs one policy, but the configuration has {names}; choose one, as in --policy vllm"
        )
    with telling(json) as answer, study_folder(out, "simulate", overwrite) as place:
        check_file(perfetto, "--perfetto", made=out)
        result, code = _run(settled, step_by_step)
        _deliver(result, settled, place, perfetto)
        answer(lambda: _numbers(result, settled.cluster is not None))
    return code


def _deliver(result: Result, settled: Config, place: StudyFolder, perfetto: Path | None) -> None:
    """Write everything, and then print it."""
    from busdoor.cli.render import print_replicas, print_summary
    from busdoor.cluster.per_replica import replica_table
    from busdoor.core.saved import write_csv
    from busdoor.results.result import write_result

    write_result(result, place.part)
    replicas = None if settled.cluster is None else replica_table(result)
    if replicas is not None:
        write_csv(replicas, place.part / "replicas.csv")
    folder = place.publish()
    if perfetto is not None:
        result.to_perfetto(perfetto)
    print_summary(result, settled.slo)
    if replicas is not None:
        print_replicas(replicas)
    print(f"Result: {folder}")
    if perfetto is not None:
        print(f"Timeline for https://ui.perfetto.dev: {perfetto}")


def _numbers(result: Result, of_cluster: bool) -> dict[str, Any]:
    """Return the summary, and of a cluster a row a server."""
    from busdoor.cluster.per_replica import replica_table

    replicas = {"replicas": replica_table(result).to_dict("records")} if of_cluster else {}
    return {**{str(key): value for key, value in result.summary.items()}, **replicas}


def _run(settled: Config, step_by_step: bool) -> tuple[Result, int]:
    """Run, and return the result and the exit code; of an interrupted run what was done."""
    from busdoor.cli.progress import notice, progress_bar
    from busdoor.cli.telling import note
    from busdoor.config.run import idle_caches, limits_for, run, servable
    from busdoor.simulator.system import Interrupted

    try:
        with progress_bar("drawing requests") as report:
            trace = settled.workload.trace(settled.seed)
            notice(idle_caches(settled, trace))
            done = run(
                settled,
                settled.policies[0],
                trace,
                limits_for(settled, [servable(settled, trace)]),
                step_by_step=step_by_step,
                progress=lambda done, total: report(done / total, f"{done:,} of {total:,} requests"),
            )
    except Interrupted as stopped:
        note(f"{stopped}; the rest is written as unfinished")
        return stopped.result, exit_code()
    return done, 0
