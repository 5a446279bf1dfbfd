"""Requests that no server of the study can ever serve: they are counted, and are never load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor_workloads import Trace


class Refused(NamedTuple):
    """How many of how many requests are refused, and why the first of them is."""

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
        """Return it in words."""
        return f"{self.num:,} of {self.of:,} requests are refused, and are no load: {self.reason}"


NONE_REFUSED = Refused()


def taken(trace: Trace, policies: Sequence[Policy]) -> tuple[Trace, Refused]:
    """Return a trace without the requests that all policies refuse, at the same number of requests per second.

    Whether a request is refused depends on its lengths, never on when it comes. Where a request as long as the longest
    prompt and the longest answer together is taken, all are.

    Raises
    ------
    ValueError
        If no request is left.
    """
    reasons = [_refusals(policy, trace) for policy in policies if len(trace) and _refusal(policy, _longest(trace))]
    if not reasons or len(reasons) < len(policies):
        return trace, Refused(0, len(trace))
    refused = np.all([own != "" for own in reasons], axis=0)
    if not refused.any():
        return trace, Refused(0, len(trace))
    found = Refused(int(refused.sum()), len(trace), str(reasons[0][refused][0]))
    if refused.all():
        raise ValueError(f"{trace.name}: {found}, so that no rate can be tried")
    return _at_rate_of(trace, trace.select(~refused)), found


def taken_from_all(traces: Sequence[Trace], policies: Sequence[Policy]) -> tuple[list[Trace], Refused]:
    """Return several traces without the requests that all policies refuse; see `taken`."""
    pairs = [taken(trace, policies) for trace in traces]
    refused = NONE_REFUSED
    for _, own in pairs:
        refused = refused.and_more(own)
    return [trace for trace, _ in pairs], refused


def _at_rate_of(trace: Trace, part: Trace) -> Trace:
    """Return a part of a trace at the whole one's requests per second, from 0 on."""
    part = part.with_arrivals(part.arrival_s - part.arrival_s[0])
    return part.at_rate(trace.request_rate) if np.isfinite(part.request_rate * trace.request_rate) else part


def _longest(trace: Trace) -> Request:
    caps = trace.max_output_tokens
    cap = 0 if caps is None else int(caps.max())
    return Request(0, 0.0, int(trace.input_tokens.max()), int(trace.output_tokens.max()), cap)


def _refusals(policy: Policy, trace: Trace) -> NDArray[np.str_]:
    caps = np.zeros(len(trace), dtype=int) if trace.max_output_tokens is None else trace.max_output_tokens
    rows = zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), caps.tolist(), strict=True)
    return np.array([_refusal(policy, Request(number, 0.0, *row)) for number, row in enumerate(rows)])


def _refusal(policy: Policy, request: Request) -> str:
    """Return why a policy refuses a request; empty if it takes it (and then keeps it: the policy is used up)."""
    policy.add(request)
    return request.status.partition(": ")[2] if request.status.startswith("refused") else ""
