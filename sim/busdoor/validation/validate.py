"""Replay measured runs in the simulator; report how far off it is, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any

from busdoor.calibration.host_launch import on_host_of
from busdoor.calibration.request_fit import Load
from busdoor.calibration.request_load import Sent, server_of
from busdoor.calibration.teacher_forcing import (
    Replayed,
    check_served,
    policy_of,
    predicted_s,
    serve,
)
from busdoor.config import Config
from busdoor.policies.offered_load import accepted, offered_load
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime
from busdoor.validation.error_budget import error_budget
from busdoor.validation.errors import batch_agreement, compare_statistics, step_errors
from busdoor.validation.intervals import add_intervals
from busdoor.validation.run import RunValidation
from busdoor.validation.validation import Validation
from busdoor_workloads import Trace


def validate(
    measured: Sequence[Result],
    step_time: StepTime,
    names: Sequence[str] | None = None,
    *,
    policy: Mapping[str, Any] | None = None,
    traces: Sequence[Trace] | None = None,
    sent: Sent | None = None,
    server: Config | None = None,
    about: Mapping[str, Any] | None = None,
) -> Validation:
    """Replay measured runs in the simulator.

    Parameters
    ----------
    measured : sequence of Result
        Runs on hardware.
    step_time : StepTime
        The model to be judged.
    names : sequence of str, optional
        What to call the runs.
    policy : mapping, optional
        Fields that replace the policy, num_blocks, block_size or max_model_len in the runs' meta.
    traces : sequence of Trace, optional
        What was served, where requests and arrivals do not describe it fully (shared prefixes,
        closed loops).
    sent : Sent, optional
        How the requests were sent, and the server's lookahead, where the runs do not say.
    server : Config, optional
        Whose policy and memory it is, where the runs do not say.
    about : mapping, optional
        `Calibration.about` of the model, to separate the runs that it was fitted to from the
        others.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        If a run's meta has no policy, there is no run, or two have the same name.
    """
    names = list(names or (f"run {i + 1}" for i in range(len(measured))))
    if not names:
        raise ValueError("there is nothing to validate; give one or more measured runs")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two of the runs are called {twice[0]!r}; give each a name of its own")
    how, given = sent or Sent(), dict(policy or {})
    runs = []
    for number, (result, name) in enumerate(zip(measured, names, strict=True)):
        try:
            known = None if server is None else server_of(server, result)
            load = how.load(name, result, given, number, known)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        runs.append(
            _validate(
                load if traces is None else replace(load, trace=traces[number]), step_time, given
            )
        )
    return Validation(runs, step_time, dict(about or {}))


def _validate(load: Load, step_time: StepTime, given: Mapping[str, Any]) -> RunValidation:
    measured, name, trace = load.measured, load.name, load.trace
    policy = policy_of(load.meta, trace, given)
    check_served(measured, name)
    step_time, host_launch = on_host_of(step_time, measured)
    # What a client timed has passed the front end; what an engine recorded of itself has not.
    engine = None if len(measured.iterations) else getattr(step_time, "engine", None)

    def run(model: StepTime) -> Result:
        return serve(trace, policy_of(load.meta, trace, given), model, load.lookahead, engine)

    simulated = run(step_time)
    check_served(simulated, f"{name}, simulated with that policy and memory,")
    replayed = (
        run(Replayed(measured.iterations["duration_s"].to_numpy(dtype=float), step_time))
        if _single(measured)
        else None
    )
    return RunValidation(
        name=name,
        measured=measured,
        simulated=simulated,
        trace=trace,
        whole_batches=policy.whole_batch,
        load=offered_load(accepted(trace, measured.requests), policy, step_time),
        steps=step_errors(measured, step_time),
        agreement={
            "played": nan if replayed is None else batch_agreement(measured, replayed)["same"],
            **batch_agreement(measured, simulated),
        },
        table=add_intervals(compare_statistics(measured, simulated), measured, simulated),
        budget=error_budget(measured, simulated, replayed, step_time),
        predicted_s=predicted_s(measured, step_time),
        host_launch=host_launch,
    )


def _single(measured: Result) -> bool:
    """Whether each iteration has a row of its own, so that durations can be replayed."""
    return bool(len(measured.iterations)) and bool((measured.iterations["repeat"] == 1).all())
