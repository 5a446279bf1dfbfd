"""`busdoor observe`: a trace against a real server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from busdoor.cli.flags import ClientFlags, Json, Overwrite
from busdoor.core.interrupt import exit_code

if TYPE_CHECKING:
    from busdoor.observe.how import How
    from busdoor.observe.observation import Observation
    from busdoor.results.result import Result
    from busdoor_workloads import Trace


def observe(
    url: str,
    /,
    *,
    workload: str | None = None,
    rate: Annotated[list[float] | None, Parameter(name=("--rate", "--request-rate"))] = None,
    num_requests: int | None = None,
    config: Path | None = None,
    out: Path | None = None,
    overwrite: Overwrite = False,
    concurrency: int | None = None,
    max_in_flight: int | None = None,
    static: int | None = None,
    model: str | None = None,
    api: Literal["completions", "chat"] = "completions",
    warm_up: int = 3,
    step_log: Path | None = None,
    client: ClientFlags = ClientFlags(),
    json: Json = False,
) -> int:
    """Send a trace to an OpenAI-compatible server, and keep every time that a client can see.

    The folder is that of a result: its table requests has when each request was due, sent and
    answered, its tokens by the server's usage, and its errors; chunks.csv the time of every chunk;
    server.csv the server's own numbers once a second. `busdoor calibrate`, `validate` and `plot` take it. The
    API key is read from OPENAI_API_KEY and written nowhere.

    Parameters
    ----------
    url
        The server's address, as in http://127.0.0.1:8000.
    workload
        A profile (azure-conv, the default, azure-code ...) or a trace file.
    rate
        Requests per second; several rates run one after the other, each into a folder of its own.
        By default the workload's own arrivals.
    num_requests
        Requests per rate; by default the workload's own number.
    config
        TOML file with [workload]; flags override it.
    out
        Folder for the result; by default a fresh busdoor-observe-001.
    concurrency
        A closed loop: so many users, each of which sends its next request after the answer.
    max_in_flight
        A cap on open requests. It is recorded, since it turns an open loop into a closed one.
    static
        Emulate a static server with batches of so many requests: all in, all out, every member as
        long as the longest.
    model
        Model to ask for; only needed where the server has several.
    api
        completions sends token ids; chat sends text, for servers that take nothing else.
    warm_up
        Requests that are sent before and left out.
    step_log
        File of busdoor's recorder in vLLM on this machine: iterations are joined to requests.
    """
    from busdoor.cli.from_flags import overrides
    from busdoor.cli.output import output
    from busdoor.cli.real_servers.render import print_observation
    from busdoor.core.json import write_json
    from busdoor.core.study_folder import study_folder
    from busdoor.observe.folder import write_observation
    from busdoor.observe.how import How

    tables = overrides(client, workload=workload, num_requests=num_requests)
    traces = _traces(tables, config, rate or [None], concurrency)
    how = How(
        model=model,
        api=api,
        max_in_flight=max_in_flight,
        static=static,
        warm_up=warm_up,
        seed=client.seed or 0,
    )
    with output(json) as answer, study_folder(out, "observe", overwrite) as place:
        seen: list[Observation] = []
        code = 0
        for name, trace in traces:
            found, engine = _run(url, trace, how, step_log)
            seen.append(found)
            write_observation(found, place.part / name, engine)
            place.kept = True
            print_observation(found, engine)
            if not found.result.meta["complete"]:
                code = exit_code()
                break
        if len(traces) > 1:
            write_json(place.part / "observe.json", {"complete": not code, "runs": len(seen)})
        print(f"Result: {place.publish()}")
        answer(lambda: [one.result.summary.to_dict() for one in seen])
    return code


def _traces(
    tables: dict[str, Any],
    config: Path | None,
    rates: Sequence[float | None],
    concurrency: int | None,
) -> list[tuple[str, Trace]]:
    """Draw a trace for each rate, each with a seed of its own."""
    from dataclasses import replace

    from busdoor.cli.from_flags import configured
    from busdoor.observe.folder import run_folder

    found = []
    for number, rate in enumerate(rates):
        at_rate = {} if rate is None else {"request_rate": rate}
        flags = {**tables, "workload": {**tables.get("workload", {}), **at_rate}}
        settled = configured(config, flags, {"workload": {"name": "azure-conv"}})
        trace = settled.workload.trace(settled.seed, number)
        if concurrency is not None:
            trace = replace(trace, concurrency=concurrency, arrival_s=0.0 * trace.arrival_s)
        found.append((run_folder(rate, len(rates) > 1), trace))
    return found


def _run(
    url: str, trace: Trace, how: How, step_log: Path | None
) -> tuple[Observation, Result | None]:
    """Send one trace, and read what the engine recorded of it."""
    from time import sleep

    from busdoor.cli.progress import progress_bar
    from busdoor.observe.api import observe as send
    from busdoor.observe.step_log import SETTLE_S, read_step_log, recorded_run

    if step_log is not None:
        read_step_log(step_log)  # a mistake in its name costs nothing now
    with progress_bar(f"asking {url}") as report:
        found = send(url, trace, how, progress=report)
    sleep(SETTLE_S)
    if step_log is None:
        return found, None
    return found, recorded_run(step_log, found.result.meta, trace.name)
