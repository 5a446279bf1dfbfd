"""`busdoor capacity`: the highest rate that meets an SLO, and how many GPUs a rate needs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from busdoor.cli.flags import (
    ClientFlags,
    DrawFlags,
    EngineFlags,
    HardwareFlags,
    Json,
    Overwrite,
)

if TYPE_CHECKING:
    from busdoor.capacity import Capacity
    from busdoor.capacity.several import Studies
    from busdoor.capacity.sizing import Day
    from busdoor.capacity.study import Study
    from busdoor.cli.output import Answer
    from busdoor.config import Config
    from busdoor.core.study_folder import StudyFolder


def capacity(
    *,
    slo: list[str] | None = None,
    goodput: float | None = None,
    rate: Annotated[float | None, Parameter(name=("--rate", "--request-rate"))] = None,
    diurnal: str | None = None,
    startup: str | None = None,
    floor: int | None = None,
    gpu_price: float | None = None,
    policy: list[str] | None = None,
    drawn: DrawFlags = DrawFlags(),
    num_requests: int | None = None,
    tolerance: float | None = None,
    hardware: HardwareFlags = HardwareFlags(),
    server: EngineFlags = EngineFlags(),
    client: ClientFlags = ClientFlags(),
    confidence: float | None = None,
    validation: Path | None = None,
    what_next: bool = False,
    jobs: int | None = None,
    out: Path | None = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Find the highest rate at which each policy meets an SLO, and the GPUs a rate needs.

    Without flags: MLPerf's SLO for llama-3.1-8b (TTFT p99 2 s, TPOT p99 100 ms) on Azure's
    conversation trace, with one H100; static, dynamic, orca and vllm. Whether a rate meets the SLO
    is decided by a confidence bound over replications.

    Parameters
    ----------
    slo
        An SLO: --slo ttft_p99=2s --slo tpot_p99=100ms, of ttft, tpot, itl, e2e or normalized with
        mean, p50, p90, p95, p99; or a preset (MLPerf's of the model unless given, distserve-chat-13b
        ...). A plain --slo ttft=2s is for single requests, counted by --goodput.
    goodput
        Share of requests that must meet all plain limits; by default 0.99.
    rate
        Requests per second to serve: prints how many GPUs that needs.
    diurnal
        Ratio of peak to trough around a day, --rate being the peak; or hourly rates: 10,40,20 or a
        CSV file.
    startup
        With --diurnal: time from a server's order until it answers, billed too: 5min, 90s.
    floor
        With --diurnal: servers that always run.
    gpu_price
        Price of one GPU per hour: prints what the rate costs.
    policy
        A policy: --policy static,batch_size=16 --policy vllm. By default static, dynamic, orca, vllm.
    num_requests
        Requests of each replication's first runs; doubled where they are too few; by default 1,000.
    tolerance
        Half of the bracket's width, as a share of the answer; by default 0.02.
    confidence
        Say how many servers meet the SLO at --rate with this probability, as in 0.95: sampling, the
        calibration and the model's error counted together.
    validation
        Folder that busdoor validate wrote, which says how far the model is off at each load.
    what_next
        Say which measurement on the server would narrow the answer most.
    jobs
        Number of processes; by default one per processor.
    out
        Folder for tables and plots; by default a new busdoor-capacity-001.
    """
    from busdoor.capacity.api import NUM_REQUESTS, TOLERANCE, make_studies
    from busdoor.cli.from_flags import overrides, servers
    from busdoor.cli.output import note, output, print_warnings
    from busdoor.cli.progress import progress_bar
    from busdoor.config.limits import idle_caches
    from busdoor.core.interrupt import exit_code
    from busdoor.core.study_folder import study_folder
    from busdoor.metrics.slo import slo_table

    own = {"rate": rate, "policy": policy, "gpu_price": gpu_price}
    shared = {"replicas": hardware.replicas, "router": hardware.router}
    tables = overrides(server, client, drawn, **own, **shared)
    cards = servers(hardware.gpu, hardware.tp)
    configs, defaulted = _settle(server.config, tables, cards, slo_table(slo or [], goodput))
    settled = configs[0]
    wanted = settled.workload.request_rate
    _refuse_idle(
        {"--gpu-price": gpu_price},
        wanted is None and diurnal is None,
        "without --rate or --diurnal",
    )
    _refuse_idle(
        {"--num-requests": num_requests},
        settled.workload.path is not None,
        "to a trace file, which is run whole",
    )
    _refuse_idle({"--startup": startup, "--floor": floor}, diurnal is None, "without --diurnal")
    day = _day(diurnal, wanted, startup, floor)
    requests = (
        settled.workload.num_requests or NUM_REQUESTS if num_requests is None else num_requests
    )
    near = TOLERANCE if tolerance is None else tolerance
    with output(json) as answer, study_folder(out, "capacity", overwrite) as place:
        with progress_bar("drawing requests"):
            study = make_studies(configs, num_requests=requests, tolerance=near)
            print_warnings(idle_caches(settled, study.runs.traces[0]))
        if defaulted:
            note(_default_note(settled))
        _run(study, jobs)
        if not study.answers:
            raise KeyboardInterrupt
        sure = confidence, validation, what_next
        _deliver(study, wanted or (max(day.hourly_rps) if day else None), day, place, answer, sure)
    return 0 if study.finished else exit_code()


def _refuse_idle(given: dict[str, Any], idle: bool, where: str) -> None:
    """Raise ValueError for a flag that would change nothing."""
    for flag, value in given.items():
        if idle and value is not None:
            raise ValueError(f"{flag} does not apply {where}; leave it out")


def _settle(
    path: Path | None, tables: dict[str, Any], cards: list[dict[str, Any]], slo: dict[str, Any]
) -> tuple[list[Config], bool]:
    """Return a configuration per server, of the file and the flags; whether its SLO is a default.

    Of several servers those that the model does not fit on are left out, with a note.
    """
    from busdoor.capacity.api import REPLICATIONS, with_slo
    from busdoor.cli.from_flags import configured
    from busdoor.cli.output import note

    configs: list[Config] = []
    for number, card in enumerate(cards):
        given = {"gpu": {**tables.get("gpu", {}), **card}} if card else {}
        try:
            own = {**tables, **given, **({"slo": slo} if slo else {})}
            configs.append(configured(path, own, {"replications": REPLICATIONS}))
        except ValueError as error:
            if len(cards) == 1 or (number == len(cards) - 1 and not configs):
                raise
            note(f"busdoor: left out: {error}")
    return [with_slo(config) for config in configs], not configs[0].slo


def _default_note(config: Config) -> str:
    from busdoor.metrics.slo_presets import own_slo

    model = config.gpu.model.name
    other = "" if config.slo.preset == own_slo(model) else f", as MLPerf has none for {model}"
    return (
        f"No SLO is given: {config.slo} is only a default{other}; give yours with --slo, or "
        f"[slo] in the file."
    )


def _day(
    diurnal: str | None, peak_rps: float | None, startup: str | None, floor: int | None
) -> Day | None:
    from busdoor.capacity import hourly_rates
    from busdoor.capacity.sizing import Day
    from busdoor.core.units import number_or_text, parse_seconds
    from busdoor_workloads.given import whole_number

    if diurnal is None:
        return None
    try:
        if not 0 <= (startup_s := parse_seconds(number_or_text(startup or "0"))) < float("inf"):
            raise ValueError("it must be a finite time, 0 or more; write it as in 5min")
    except ValueError as error:
        raise ValueError(f"--startup {startup}: {error}") from None
    return Day(hourly_rates(diurnal, peak_rps), startup_s, whole_number("--floor", floor or 0))


Sure = tuple[float | None, "Path | None", bool]  # --confidence, --validation, --what-next


def _how_sure(study: Study | Studies, found: Capacity, rate: float | None, sure: Sure) -> Capacity:
    """Return the results with their uncertainty: for a rate, or where it was asked for."""
    from busdoor.capacity.confidence.report import uncertainty
    from busdoor.cli.progress import progress_bar
    from busdoor.validation.validation import Validation

    if not study.finished or (rate is None and not any(sure)):
        return found
    confidence, folder, what_next = sure
    checked = None if folder is None else Validation.load(folder)
    with progress_bar("how sure the answers are"):
        known = uncertainty(
            study, found, rate, confidence=confidence, validation=checked, next_too=what_next
        )
    return replace(found, uncertainty=known)


def _run(study: Study | Studies, jobs: int | None) -> None:
    """Run under a progress bar, to the end or until Ctrl-C."""
    from busdoor.capacity.runs import processes
    from busdoor.cli.progress import progress_bar

    with suppress(KeyboardInterrupt), progress_bar() as report, processes(jobs) as pool:
        study.start(pool, report)
        study.run()


def _deliver(
    study: Study | Studies,
    rate: float | None,
    day: Day | None,
    place: StudyFolder,
    answer: Answer,
    sure: Sure,
) -> None:
    """Write everything, and then print it."""
    from busdoor.capacity import capacity_of
    from busdoor.capacity.folder import day_dict, write, write_day
    from busdoor.cli.render import print_capacity, print_day

    found = _how_sure(study, capacity_of(study), rate, sure)
    if day:
        write_day(found, day, place.part)
    folder = write(found, place, rate)
    print_capacity(found, rate)
    if day:
        print_day(found, day)
    if not study.finished:
        print(
            f"Interrupted: {len(study.answers)} of {study.num_rows} rows are done, and these are "
            f"their answers."
        )
    print(f"Tables and plots: {folder}")
    answer(lambda: {**found.to_dict(rate), **(day_dict(found, day) if day else {})})
