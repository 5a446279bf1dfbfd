"""`busdoor compare`: policies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from busdoor.cli.flags import (
    ClientFlags,
    ClusterFlags,
    DrawFlags,
    Json,
    Overwrite,
    Perfetto,
    ServerFlags,
)
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.cli.output import Answer
    from busdoor.comparison.experiment import Experiment
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder
    from busdoor_workloads import Trace


def compare(
    *,
    policy: list[str] | None = None,
    drawn: DrawFlags = DrawFlags(),
    num_requests: int | None = None,
    server: ServerFlags = ServerFlags(),
    cluster: ClusterFlags = ClusterFlags(),
    client: ClientFlags = ClientFlags(),
    curve: bool = False,
    gain_map: Annotated[bool, Parameter(name="--map")] = False,
    measured: list[Path] | None = None,
    validation: Path | None = None,
    out: Path | None = None,
    overwrite: Overwrite = False,
    json: Json = False,
    perfetto: Perfetto = None,
) -> int:
    """Compare policies on the same requests, and print what continuous batching gains.

    Without flags: static, dynamic, orca and vllm on 2,000 requests of Azure's conversation trace at
    12 requests/s, with llama-3.1-8b on one H100. Prints a table and a verdict, and writes tables
    and plots into a folder.

    Parameters
    ----------
    policy
        A policy to compare, with fields after commas: --policy static,batch_size=16 --policy vllm.
        The others are compared with the first. By default static, dynamic, orca and vllm.
    num_requests
        Requests of each replication; by default the workload's own number, 2,000 without --workload.
    curve
        Compare over offered loads of 0.1 to 1.2 of what the best continuous policy carries: E2E
        ratio, share within the SLO, idle slot time and cost, and where the policies part. By
        default static, static at its best batch size, dynamic and vllm.
    gain_map
        Draw the gain over the spread of output lengths, static batching's batch size and the load.
    measured
        With --map: a folder of measured runs to draw on it with their predictions, as busdoor
        validate writes it, or with calibration.toml beside runs/.
    validation
        Folder that busdoor validate wrote, which says how far the model is off: how sure an SLO is
        met rests on it.
    out
        Folder for tables and plots; by default a new busdoor-compare-001.
    """
    from busdoor.cli.from_flags import configured, names_policies, overrides
    from busdoor.cli.output import output
    from busdoor.comparison.api import DEFAULT_JOB
    from busdoor.core.study_folder import study_folder
    from busdoor.core.study_paths import check_file

    tables = overrides(server, client, drawn, cluster, policy=policy, num_requests=num_requests)
    if curve or gain_map or measured:
        _check_over(curve, gain_map, measured, cluster.rate, perfetto, validation)
        return _over(server.config, tables, gain_map, measured or [], out, overwrite, json)
    settled = configured(server.config, tables, DEFAULT_JOB)
    with output(json) as answer, study_folder(out, "compare", overwrite) as place:
        check_file(perfetto, "--perfetto", made=out)
        chosen = "policy" in tables or names_policies(server.config)
        experiment = _experiment(settled, chosen, validation)
        finished = _run(experiment)
        if not experiment.summaries:
            raise KeyboardInterrupt
        _deliver(experiment, finished, place, perfetto, answer)
    return 0 if finished else exit_code()


def _check_over(
    curve: bool,
    gain_map: bool,
    measured: list[Path] | None,
    rate: float | None,
    perfetto: Path | None,
    validation: Path | None,
) -> None:
    """Raise ValueError for flags that do not go together."""
    if curve and gain_map:
        raise ValueError("--curve and --map are two studies; give one of them")
    if measured and not gain_map:
        raise ValueError("--measured applies only to --map; leave it out")
    if rate is not None:
        raise ValueError(f"--rate {rate:g} does not apply: the loads set the rates; leave it out")
    if perfetto is not None:
        raise ValueError("--perfetto does not apply to --curve and --map; leave it out")
    if validation is not None:
        raise ValueError("--validation does not apply to --curve and --map; leave it out")


def _over(
    config: Path | None,
    tables: dict[str, Any],
    gain_map: bool,
    measured: list[Path],
    out: Path | None,
    overwrite: bool,
    json: bool,
) -> int:
    """Compare over loads, or draw the map."""
    from busdoor.cli.compare_over import MAP_REPLICATIONS, POLICIES, run_curve, run_map
    from busdoor.cli.from_flags import configured
    from busdoor.cli.output import output
    from busdoor.comparison.api import DEFAULT_JOB
    from busdoor.core.study_folder import study_folder

    defaults = {**DEFAULT_JOB, "policy": list(POLICIES)}
    defaults |= {"replications": MAP_REPLICATIONS} if gain_map else {}
    settled = configured(config, tables, defaults)
    name = "map" if gain_map else "curve"
    with output(json) as answer, study_folder(out, name, overwrite) as place:
        whole = (
            run_map(settled, measured, place, answer)
            if gain_map
            else run_curve(settled, place, answer)
        )
    return 0 if whole else exit_code()


def _experiment(settled: Config, chosen: bool, validation: Path | None) -> Experiment:
    """Draw the requests; of policies that the user has not chosen, leave out what does not fit."""
    from busdoor.cli.output import print_warnings
    from busdoor.cli.progress import progress_bar
    from busdoor.comparison.api import draws
    from busdoor.comparison.experiment import Experiment
    from busdoor.config.limits import idle_caches
    from busdoor.validation.validation import Validation

    checked = None if validation is None else Validation.load(validation)
    with progress_bar("drawing requests"):
        settled = settled if chosen else _fitting(settled, draws(settled)(0))
        experiment = Experiment(settled, draws(settled), validation=checked)
        print_warnings(idle_caches(settled, experiment.draw(0)))
    return experiment


def _fitting(config: Config, trace: Trace) -> Config:
    """Leave out of the default policies those that the server cannot run, and print why."""
    from dataclasses import replace

    from busdoor.cli.output import note
    from busdoor.config.limits import misfits

    left_out = misfits(config, trace)
    for label, sentence in left_out.items():
        note(f"Left out: {label}. {sentence[:1].upper()}{sentence[1:]}.")
    kept = tuple(policy for policy in config.policies if policy.label not in left_out)
    return replace(config, policies=kept) if kept else config


def _run(experiment: Experiment) -> bool:
    """Run under a progress bar; return whether the run is complete."""
    from busdoor.cli.progress import progress_bar

    with progress_bar() as report:
        experiment.report = report
        try:
            experiment.run()
        except KeyboardInterrupt:
            return False
    return True


def _deliver(
    experiment: Experiment,
    finished: bool,
    place: StudyFolder,
    perfetto: Path | None,
    answer: Answer,
) -> None:
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
    """Return which replications an interrupted comparison covers: those that every row has run."""
    done, wanted = experiment.num_complete, experiment.config.replications
    if not done:
        return "Interrupted in the first replication: the rows that it had run are shown."
    return (
        f"Interrupted: this is the mean of the {done} of {wanted} replications that every row "
        f"had run."
    )
