"""When a request is first scheduled, gets tokens, leaves: written as iterations run."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

from busdoor.core.batch import Batch
from busdoor.core.request import Request


def stamp_begin(batch: Batch, now_s: float) -> None:
    """Stamp the requests that enter with a batch, and those that it preempts."""
    for request in batch.admitted:
        if isnan(request.first_scheduled_s):
            request.first_scheduled_s = max(now_s, request.arrival_s)
    for request in batch.preempted:
        if isnan(request.last_token_s) and request.generated_tokens:
            request.last_token_s = now_s


def stamp_end(
    batch: Batch,
    firsts: Sequence[Request],
    finished: Sequence[Request],
    streams: bool,
    now_s: float,
) -> Sequence[Request]:
    """Stamp requests whose prefill or output ends; return those whose slots are freed."""
    for request in firsts if streams else finished:
        if isnan(request.first_token_s):
            request.first_token_s = now_s
        request.last_token_s = nan  # it runs again: its next gap is the iteration's
    for request in finished:
        request.finish_s = now_s
    released = finished if batch.released is None else batch.released
    for request in released:
        request.released_s = now_s
    return released
