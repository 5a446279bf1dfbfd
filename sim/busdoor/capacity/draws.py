"""The draws of a study: traces at one request per second, of requests that can be served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.comparison.api import draws
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor_workloads import Trace, replication_seed

# draws: what is expected of them is known eleven times as well as of the eight that are run
_REFERENCE = 1024
_REFERENCE_REQUESTS = 4_000_000  # of all of them: 100 MB
_ONE_BLOCK = 2**31  # tokens: no prompt fills it, so that there is a single block to name


class Refused(NamedTuple):
    """The number of refused requests, of how many, and the reason of the first."""

    num: int = 0
    of: int = 0
    reason: str = ""

    @property
    def share(self) -> float:
        """Share of the requests."""
        return self.num / self.of if self.of else 0.0

    def and_more(self, other: Refused) -> Refused:
        """Return the sum of two counts."""
        return Refused(self.num + other.num, self.of + other.of, self.reason or other.reason)

    def __str__(self) -> str:
        """Return the counts and the reason in words."""
        return f"{self.num:,} of {self.of:,} requests are refused, and are no load: {self.reason}"


NONE_REFUSED = Refused()


def unit_rate(config: Config, num_requests: int | None = None) -> Config:
    """Return the configuration with one request per second, and so many requests."""
    workload = replace(config.workload, request_rate=1.0, time_scale=None)
    return replace(
        config,
        workload=workload if num_requests is None else replace(workload, num_requests=num_requests),
    )


def reference(config: Config) -> Callable[[int], Sequence[Trace]]:
    """Return a function that draws many traces of a length, none of them one of the replications.

    Each is a draw of its own: with rates that change over the day, the second half of a trace is
    another workload. The workload can be drawn again, and has one request per second.
    """
    table, law = config.workload, config.workload.workload
    seed = config.seed if table.seed is None else table.seed
    if law.shared_prefix is not None:  # ids of blocks would take gigabytes and are not read
        law = replace(law, shared_prefix=replace(law.shared_prefix, block_size=_ONE_BLOCK))

    one_at_a_time = Lock()  # else two threads could draw the same

    @cache
    def drawn(num_requests: int) -> Sequence[Trace]:
        count = max(2, min(_REFERENCE, _REFERENCE_REQUESTS // num_requests))
        seeds = (replication_seed(seed, config.replications + number) for number in range(count))
        return [law.generate(own, num_requests=num_requests, request_rate=1.0) for own in seeds]

    def drawn_once(num_requests: int) -> Sequence[Trace]:
        with one_at_a_time:
            return drawn(num_requests)

    return drawn_once


def begins_alike(config: Config) -> bool:
    """Return whether a short draw has the law of a long draw's beginning, as a reference must.

    Not with sessions, since the end of a draw has later turns only; nor if arrivals fill a duration
    or climb a ramp to their end.

    >>> begins_alike(Config.from_table({"workload": {"name": "chat"}}))
    True
    >>> ramp = {"process": "ramp", "ramp_up_start_rps": 1, "ramp_up_end_rps": 9}
    >>> others = [Config.from_table({"workload": own}) for own in ({"name": "agentic"}, {"arrival": ramp})]
    >>> any(map(begins_alike, others))
    False
    """
    law = config.workload.workload
    fills = (
        getattr(law.arrival, "normalize_duration", False)
        or getattr(law.arrival, "ramp_up_s", 0.0) is None
    )
    return law.multi_turn is None and not fills


def draw_traces(unit: Config, recorded: Trace | None, fixed: bool) -> tuple[list[Trace], Refused]:
    """Return one trace per replication, without the requests that all policies refuse.

    A file loses these before it is resampled. They must not widen the limits, which are those of
    the rest.
    """
    first = draws(unit, recorded)(0)
    _check_trace(first)
    if fixed:
        rest, refused = taken(first, _policies(unit, [first]))
        draw = draws(unit, rest)
        return [draw(number) for number in range(unit.replications)], refused
    draw = draws(unit, recorded)
    traces = [first, *(draw(number) for number in range(1, unit.replications))]
    return taken_from_all(traces, _policies(unit, traces))


def _policies(config: Config, traces: list[Trace]) -> list[Policy]:
    """Build the policies that fit the memory; others refuse nothing."""
    limits, built = limits_for(config, traces), []
    for policy in config.policies:
        with suppress(ValueError):
            built.append(policy.capped(limits.max_output_tokens).build(limits.kv, traces[0]))
    return built


def _check_trace(trace: Trace) -> None:
    if not len(trace):
        raise ValueError(f"{trace.name} has no requests, so that no rate can be tried")
    if trace.concurrency:
        raise ValueError(
            f"{trace.name} is a closed loop, whose users wait for answers, so that no rate can be "
            f"searched for"
        )


def taken(trace: Trace, policies: Sequence[Policy]) -> tuple[Trace, Refused]:
    """Return a trace without the requests that all policies refuse, at the same request rate.

    Refusal depends on a request's lengths, never on its arrival. If a request with the longest
    prompt and the longest answer is accepted, all are. Raises ValueError if no request is left.
    """
    reasons = [
        _refusals(policy, trace)
        for policy in policies
        if len(trace) and _refusal(policy, _longest(trace))
    ]
    if not reasons or len(reasons) < len(policies):
        return trace, Refused(0, len(trace))
    refused = np.all([own != "" for own in reasons], axis=0)
    if not refused.any():
        return trace, Refused(0, len(trace))
    found = Refused(int(refused.sum()), len(trace), str(reasons[0][refused][0]))
    if refused.all():
        raise ValueError(f"{trace.name}: {found}, so that no rate can be tried")
    return _at_rate_of(trace, trace.select(~refused)), found


def taken_from_all(
    traces: Sequence[Trace], policies: Sequence[Policy]
) -> tuple[list[Trace], Refused]:
    """Return several traces without the requests that all policies refuse; see `taken`."""
    pairs = [taken(trace, policies) for trace in traces]
    refused = NONE_REFUSED
    for _, own in pairs:
        refused = refused.and_more(own)
    return [trace for trace, _ in pairs], refused


def _at_rate_of(trace: Trace, part: Trace) -> Trace:
    """Return a part of a trace at the request rate of the whole, from 0 on."""
    part = part.with_arrivals(part.arrival_s - part.arrival_s[0])
    if np.isfinite(part.request_rate * trace.request_rate):
        return part.at_rate(trace.request_rate)
    return part


def _longest(trace: Trace) -> Request:
    caps = trace.max_output_tokens
    cap = 0 if caps is None else int(caps.max())
    return Request(0, 0.0, int(trace.input_tokens.max()), int(trace.output_tokens.max()), cap)


def _refusals(policy: Policy, trace: Trace) -> NDArray[np.str_]:
    caps = (
        np.zeros(len(trace), dtype=int)
        if trace.max_output_tokens is None
        else trace.max_output_tokens
    )
    rows = zip(
        trace.input_tokens.tolist(), trace.output_tokens.tolist(), caps.tolist(), strict=True
    )
    return np.array(
        [_refusal(policy, Request(number, 0.0, *row)) for number, row in enumerate(rows)]
    )


def _refusal(policy: Policy, request: Request) -> str:
    """Return why a policy refuses a request, or an empty text.

    An accepted one stays in its queue: the policy cannot be used again.
    """
    policy.add(request)
    return request.status.partition(": ")[2] if request.status.startswith("refused") else ""
