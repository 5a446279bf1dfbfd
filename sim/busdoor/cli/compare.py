"""`busdoor compare`: policies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from busdoor.cli.flags import ONE_GPU, ParallelFlags, Rate
from busdoor.cli.reading import AS_WRITTEN, FileFlags
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.cli.telling import Answer
    from busdoor.comparison.experiment import Experiment
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder
    from busdoor_workloads import Trace

Flag = Parameter(negative="")


def compare(
    *,
    policy: list[str] | None = None,
    workload: str | None = None,
    rate: Rate = None,
    num_requests: int | None = None,
    gpu: str | None = None,
    model: str | None = None,
    step_time: str | None = None,
    engine: str | None = None,
    parallel: ParallelFlags = ONE_GPU,
    replicas: int | None = None,
    router: str | None = None,
    config: Path | None = None,
    seed: int | None = None,
    replications: int | None = None,
    lookahead: Literal[0, 1] | None = None,
    timeout: str | None = None,
    reading: FileFlags = AS_WRITTEN,
    out: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
    perfetto: Path | None = None,
) -> int:
    """Run policies side by side on the same requests, and say what continuous batching is worth.

    Without flags: static, dynamic, orca and vllm on 2,000 requests of Azure's conversation trace at 12 requests/s, with
    llama-3.1-8b on one H100. Prints a table and a verdict, and writes tables and plots into a folder.

    Parameters
    ----------
    policy
        A policy to compare, with fields after commas: --policy static,batch_size=16 --policy vllm. The others are
        measured against the first.
    workload
        A profile (azure-conv, azure-code ...) or a trace file.
    rate
        Requests per second, in place of the workload's own arrivals; inf for all at once.
    num_requests
        Requests of each replication.
    gpu
        GPU of the catalogue: h100, a100-80gb, l40s ...
    model
        Model of the catalogue: llama-3.1-8b, qwen3-14b ...
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
    config
        TOML file with any of these and more; flags override it.
    seed
        Of every random stream: the same seed gives the same numbers.
    replications
        Draws of the workload; every policy has the same ones.
    lookahead
        1: the next batch is decided while the one before still runs; 0: at its end. Unset: the engine's, else 1 with
        vllm.
    timeout
        Clients give up after so long: 30, 30s, 2min.
    out
        Folder for tables and plots; by default a fresh busdoor-compare-001.
    overwrite
        Replace whole what an earlier study left in the folder of --out.
    json
        Print the numbers as one line of JSON; tables and remarks then go to stderr.
    perfetto
        File for a timeline to load in https://ui.perfetto.dev.
    """
    from busdoor.cli.flags import configured, names_policies, overrides
    from busdoor.cli.telling import telling
    from busdoor.comparison.api import DEFAULT_JOB
    from busdoor.core.study_folder import study_folder
    from busdoor.core.study_paths import check_file

    tables = overrides(
        policy=policy, workload=workload, rate=rate, num_requests=num_requests, gpu=gpu, model=model,
        step_time=step_time, engine=engine, parallel=parallel, replicas=replicas, router=router, seed=seed,
        reading=reading, replications=replications, lookahead=lookahead, timeout=timeout,
    )  # fmt: skip
    settled = configured(config, tables, DEFAULT_JOB)
    with telling(json) as answer, study_folder(out, "compare", overwrite) as place:
        check_file(perfetto, "--perfetto", made=out)
        experiment = _experiment(settled, "policy" in tables or names_policies(config))
        finished = _run(experiment)
        if not experiment.summaries:
            raise KeyboardInterrupt
        _deliver(experiment, finished, place, perfetto, answer)
    return 0 if finished else exit_code()


def _experiment(settled: Config, chosen: bool) -> Experiment:
    """Draw the requests; of policies that the user has not chosen, leave out what does not fit."""
    from busdoor.cli.progress import notice, progress_bar
    from busdoor.comparison.api import draws
    from busdoor.comparison.experiment import Experiment
    from busdoor.config.run import idle_caches

    with progress_bar("drawing requests"):
        settled = settled if chosen else _fitting(settled, draws(settled)(0))
        experiment = Experiment(settled, draws(settled))
        notice(idle_caches(settled, experiment.draw(0)))
    return experiment


def _fitting(config: Config, trace: Trace) -> Config:
    """Leave out of the default policies those that the server cannot run, and print why."""
    from dataclasses import replace

    from busdoor.cli.telling import note
    from busdoor.config.run import misfits

    left_out = misfits(config, trace)
    for label, sentence in left_out.items():
        note(f"Left out: {label}. {sentence[:1].upper()}{sentence[1:]}.")
    kept = tuple(policy for policy in config.policies if policy.label not in left_out)
    return replace(config, policies=kept) if kept else config


def _run(experiment: Experiment) -> bool:
    """Run under a progress bar; whether it came to its end."""
    from busdoor.cli.progress import progress_bar

    with progress_bar() as report:
        experiment.report = report
        try:
            experiment.run()
        except KeyboardInterrupt:
            return False
    return True


def _deliver(experiment: Experiment, finished: bool, place: StudyFolder, perfetto: Path | None, answer: Answer) -> None:
    """Write everything, and then print it."""
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.render import print_comparison
    from busdoor.comparison.comparison import Comparison
    from busdoor.comparison.folder import to_json, to_perfetto, write

    comparison = Comparison.of(experiment)
    with progress_bar() as report:
        folder = write(comparison, place, report)
    if perfetto is not None:
        to_perfetto(comparison, perfetto)
    print_comparison(comparison)
    if not finished:
        print(_interruption(experiment))
    print(f"Tables and plots: {folder}")
    if perfetto is not None:
        print(f"Timeline for https://ui.perfetto.dev: {perfetto}")
    answer(lambda: to_json(comparison))


def _interruption(experiment: Experiment) -> str:
    """Print which replications an interrupted comparison is of: those that every row has run."""
    done, wanted = experiment.num_complete, experiment.config.replications
    if not done:
        return "Interrupted in the first replication: the rows that it had run are shown."
    return f"Interrupted: this is the mean of the {done} of {wanted} replications that every row had run."
