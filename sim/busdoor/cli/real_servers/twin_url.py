"""`busdoor twin --url`: a twin of a server that answers at an address."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from busdoor.observe.twin.compare import ServerTwin
    from busdoor.observe.twin.make import Plan
    from busdoor_workloads import Trace

SETTINGS = "twin.json"
_REQUESTS, _REPLICATIONS = 300, 4  # of the search that says what to measure next: a rough one
_GROUP = Group("A server by its address")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class UrlFlags:
    """What makes a twin of a server: flags of twin alone.

    Parameters
    ----------
    url
        An OpenAI-compatible server, as in http://127.0.0.1:8000. It is measured at some rates,
        calibrated, predicted at others and then measured there.
    workload
        A profile (azure-conv, the default, azure-code ...) or a trace file.
    rate
        Rates to calibrate on, requests per second: two that are well apart.
    predict
        Rates that are predicted before they are measured.
    static
        Also predict and measure a burst as it comes and in static batches of so many: the gain.
    num_requests
        Requests per run; by default the workload's own number.
    policy
        How the server schedules, where it does not say: vllm,max_num_seqs=64 ...
    step_log
        File of busdoor's recorder in vLLM on this machine; without it the fit is to requests alone.
    served_model
        Model to ask for; only needed where the server has several.
    force
        Predict with a fit to requests though it is doubtful.
    slo
        An SLO, as for busdoor capacity: the twin says which measurement tells most of the highest
        rate within it. By default that of the model.
    """

    url: str | None = None
    workload: str | None = None
    rate: tuple[float, ...] = ()
    predict: tuple[float, ...] = ()
    static: int | None = None
    num_requests: int | None = None
    policy: str | None = None
    step_log: Path | None = None
    served_model: str | None = None
    force: bool = False
    slo: tuple[str, ...] = ()


def refuse_without_url(given: UrlFlags) -> None:
    """Raise ValueError for a flag that applies only to a server by its address."""
    for one in fields(given):
        if getattr(given, one.name) != one.default:
            flag = f"--{one.name.replace('_', '-')}"
            raise ValueError(
                f"{flag} applies only to --url, the address of a server; add that, or leave it out"
            )


def twin_of_url(given: UrlFlags, out: Path | None, overwrite: bool, seed: int, json: bool) -> int:
    """Make the twin, print its errors, and return the exit code."""
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.real_servers.render import print_predictions
    from busdoor.cli.render import print_calibration
    from busdoor.core.json import write_json
    from busdoor.core.study_paths import locked, resumed_folder
    from busdoor.observe.twin.folder import CALIBRATION, NEXT
    from busdoor.observe.twin.make import make_twin
    from busdoor.observe.twin.page import twin_page

    if not given.rate or not given.predict:
        raise ValueError(
            "twin --url needs --rate, to calibrate on, and --predict, to predict, as in --rate 2 "
            "--predict 4"
        )
    plan = _plan(given, seed)
    folder = resumed_folder(out, "twin", SETTINGS, overwrite)
    with locked(folder), output(json) as answer:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            key: str(getattr(given, key))
            for key in ("url", "workload", "rate", "predict", "static", "num_requests")
        }
        write_json(folder / SETTINGS, {**settings, "seed": seed, "complete": False})
        with progress_bar(f"asking {given.url}") as report:
            made = make_twin(plan, folder, report)
        write_json(folder / SETTINGS, {**settings, "seed": seed, "complete": True})
        print_calibration(made.calibration)
        print_predictions(made)
        with progress_bar("what to measure next"):
            lines = _next(given, folder, seed)
        write_json(folder / NEXT, {"lines": lines})
        page = twin_page(folder).write(folder / "report.html")
        print(f"Calibration: {folder / CALIBRATION}; runs and predictions: {folder}; page: {page}")
        print("\n".join(f"{line}." for line in lines))
        answer(lambda: {**_numbers(made), "measure_next": lines})
    return 0


def _next(given: UrlFlags, folder: Path, seed: int) -> list[str]:
    """Return which measurement would tell most of the server's highest rate, in sentences."""
    from busdoor.capacity.confidence.report import measure_next
    from busdoor.cli.from_flags import configured, overrides
    from busdoor.metrics.slo import slo_table
    from busdoor.observe.twin.folder import CALIBRATION

    number = given.num_requests or _REQUESTS
    tables = overrides(
        workload=given.workload,
        policy=[given.policy or "vllm"],
        step_time=str(folder / CALIBRATION),
        slo=slo_table(given.slo),
        replications=_REPLICATIONS,
        seed=seed,
    )
    settled = configured(None, tables, {"workload": {"name": "azure-conv"}})
    try:
        return measure_next(settled, min(number, _REQUESTS))
    except ValueError as error:
        return [f"What to measure next is not known: {error}"]


def _plan(given: UrlFlags, seed: int) -> Plan:
    """Draw a trace for every rate, each with a seed of its own."""
    from busdoor.calibration.teacher_forcing import check_policy
    from busdoor.config import parse_policy
    from busdoor.observe.how import How
    from busdoor.observe.twin.make import Plan

    assert given.url is not None
    names = [f"rate-{rate:g}" for rate in (*given.rate, *given.predict)]
    if len(set(names)) < len(names):
        raise ValueError(
            "--rate and --predict have a rate in common; a rate that was calibrated on is no "
            "prediction"
        )
    *drawn, burst = _traces(given, seed)
    traces, split = dict(zip(names, drawn, strict=True)), len(given.rate)
    static = {} if given.static is None else {f"burst-static-{given.static}": given.static}
    bursts = dict.fromkeys(("burst", *static), burst) if static else {}
    return Plan(
        given.url,
        {name: traces[name] for name in names[:split]},
        {name: traces[name] for name in names[split:]} | bursts,
        How(model=given.served_model, seed=seed),
        given.step_log,
        check_policy(parse_policy(given.policy)) if given.policy else None,
        static=static,
        force=given.force,
    )


def _traces(given: UrlFlags, seed: int) -> list[Trace]:
    """Draw a trace for each rate, and one for a burst."""
    from busdoor.cli.from_flags import configured, overrides

    found = []
    for number, rate in enumerate((*given.rate, *given.predict, inf)):
        tables = overrides(workload=given.workload, num_requests=given.num_requests, rate=rate)
        settled = configured(None, tables, {"workload": {"name": "azure-conv"}})
        found.append(settled.workload.trace(seed, number))
    return found


def _numbers(made: ServerTwin) -> dict[str, Any]:
    return {
        "calibration": made.calibration.to_dict(),
        "front_end_s": made.front_end_s,
        "predictions": made.table.to_dict("records"),
        "ttft_split_s": dict(made.splits),
        "e2e_error_s": dict(made.budgets),
        "gains": made.gains,
    }
