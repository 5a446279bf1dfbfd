"""`busdoor simulate`: one policy on one trace."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.cli.flags import ClientFlags, ClusterFlags, Json, Overwrite, Perfetto, ServerFlags
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder
    from busdoor.results.hourly import HourlyResult
    from busdoor.results.result import Result


def simulate(
    trace: str,
    /,
    *,
    policy: str | None = None,
    num_requests: int | None = None,
    server: ServerFlags = ServerFlags(),
    cluster: ClusterFlags = ClusterFlags(),
    client: ClientFlags = ClientFlags(),
    step_by_step: bool = False,
    out: Path | None = None,
    overwrite: Overwrite = False,
    json: Json = False,
    csv: bool = False,
    perfetto: Perfetto = None,
    stream: bool = False,
    jobs: int | None = None,
) -> int:
    """Run one policy on one trace, and write what happened to every request.

    The folder has the tables requests, whose row k is the trace's row k, iterations and stays in
    slots; summary.json; meta.json, from which the run can be repeated; and for a cluster
    replicas.csv, a row per server. The tables are Parquet where pyarrow is installed, else CSV.

    A run of a million requests or more streams: its requests go to a Parquet file per server, in
    order of leaving, and iterations are summed by the hour, in hours.csv and replica_hours.csv.
    Memory holds the requests of an hour.

    Parameters
    ----------
    trace
        A trace file (JSONL, CSV or a public format), a profile to draw from, or a TOML file as for
        --config, with its [workload].
    policy
        Policy, with fields after commas: vllm,max_num_seqs=64. By default vllm.
    num_requests
        Number of requests to take from the start of the trace; all unless given.
    step_by_step
        Make every iteration an event of its own: slower, with the same results, to check the
        simulator.
    out
        Folder for the result; by default a new busdoor-simulate-001.
    csv
        Write the tables as CSV, as a spreadsheet opens them: slower, and three times the size.
    stream
        Stream a run of fewer than a million requests, too.
    jobs
        Processes of a run that streams, where the router does not look at the servers (round_robin,
        random, session_hash); by default one per core. The tables do not depend on it.
    """
    from busdoor.cli.from_flags import configured, overrides
    from busdoor.cli.output import output
    from busdoor.core.study_folder import study_folder
    from busdoor.core.study_paths import check_file

    policies = [policy] if policy else None
    workload, server = _source(trace, server)
    tables = overrides(
        server, client, cluster, workload=workload, policy=policies, num_requests=num_requests
    )
    settled = configured(server.config, tables, {"policy": "vllm"})
    if len(settled.policies) != 1:
        names = ", ".join(each.label for each in settled.policies)
        raise ValueError(
            f"simulate runs one policy, but the configuration has {names}; choose one, as in "
            f"--policy vllm"
        )
    with output(json) as answer, study_folder(out, "simulate", overwrite) as place:
        if _streams(settled, stream, jobs):
            kept = {"--step-by-step": step_by_step, "--csv": csv, "--perfetto": bool(perfetto)}
            streamed, code = _stream(settled, place, jobs, [flag for flag in kept if kept[flag]])
            answer(streamed.summary.to_dict)
            return code
        check_file(perfetto, "--perfetto", made=out)
        result, code = _run(settled, step_by_step)
        _deliver(result, settled, place, perfetto, csv)
        answer(lambda: _numbers(result, settled.cluster is not None))
    return code


def _source(trace: str, server: ServerFlags) -> tuple[str | None, ServerFlags]:
    """Return the workload that a command names, if it does, and its flags with the file."""
    if not trace.endswith(".toml"):
        return trace, server
    if server.config is not None:
        raise ValueError(f"{trace} and --config {server.config} are both TOML files; give one")
    return None, replace(server, config=Path(trace))


def _streams(settled: Config, asked: bool, jobs: int | None) -> bool:
    """Return whether a run streams: it is asked to, or it is long and can be cut into windows."""
    from busdoor.config.windows import is_long

    streams = asked or is_long(settled)
    if jobs is not None and not streams:
        raise ValueError(f"--jobs {jobs} applies only to a run that streams; add --stream")
    return streams


def _stream(
    settled: Config, place: StudyFolder, jobs: int | None, idle: list[str]
) -> tuple[HourlyResult, int]:
    """Run window by window, into the folder, and print the whole."""
    from busdoor.cli.output import note
    from busdoor.cli.progress import progress_bar
    from busdoor.config.streamed import run_streamed
    from busdoor.results.hourly import when
    from busdoor.results.table_text import summary_rows, what_ran

    if idle:
        raise ValueError(
            f"{idle[0]} needs every iteration, which a run that streams does not keep; leave it "
            f"out, or ask for fewer than a million requests"
        )
    if jobs is not None and (jobs == 0 or jobs < -1):
        raise ValueError(f"--jobs {jobs}: it must be 1 or more, or -1 for one per core")
    processes = os.cpu_count() or 1 if jobs in (None, -1) else jobs
    with progress_bar("drawing requests") as report:
        result = run_streamed(
            settled,
            settled.policies[0],
            place.part,
            jobs=processes,
            progress=lambda done, total: report(done / total, f"{done:,} of {total:,} requests"),
        )
    folder = place.publish()
    print(what_ran(result.meta))
    for title, value in [*summary_rows(result.summary), *result.slo_rows()]:
        print(f"{title:<26}  {value}")
    print(result.exactness)
    print(f"Result: {folder}; its hours as a picture: busdoor plot {folder}")
    if result.meta["complete"]:
        return result, 0
    note(f"stopped at {when(result.meta['stopped_s'])} of the trace; what was done is kept")
    return result, exit_code()


def _deliver(
    result: Result, settled: Config, place: StudyFolder, perfetto: Path | None, csv: bool
) -> None:
    """Write everything, and then print it."""
    from busdoor.cli.render import print_replicas, print_summary
    from busdoor.cluster.per_replica import replica_table
    from busdoor.core.saved import write_csv
    from busdoor.results.result import write_result

    write_result(result, place.part, csv)
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
    """Return the summary, and of a cluster a row per server."""
    from busdoor.cluster.per_replica import replica_table

    replicas = {"replicas": replica_table(result).to_dict("records")} if of_cluster else {}
    return {**{str(key): value for key, value in result.summary.items()}, **replicas}


def _run(settled: Config, step_by_step: bool) -> tuple[Result, int]:
    """Run, and return the result and the exit code; after an interruption the result so far."""
    from busdoor.cli.output import note, print_warnings
    from busdoor.cli.progress import progress_bar
    from busdoor.config.limits import idle_caches, limits_for, servable
    from busdoor.config.run import run
    from busdoor.simulator.system import Interrupted

    try:
        with progress_bar("drawing requests") as report:
            trace = settled.workload.trace(settled.seed)
            print_warnings(idle_caches(settled, trace))
            done = run(
                settled,
                settled.policies[0],
                trace,
                limits_for(settled, [servable(settled, trace)]),
                step_by_step=step_by_step,
                progress=lambda done, total: report(
                    done / total, f"{done:,} of {total:,} requests"
                ),
            )
    except Interrupted as stopped:
        note(f"{stopped}; the rest is written as unfinished")
        return stopped.result, exit_code()
    return done, 0
