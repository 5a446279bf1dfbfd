"""Rows of a vLLM engine log: checked, and requests found by number or string ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_TIMES = 5  # items of a request's row before its id
# vLLM's InputProcessor.assign_request_id appends 8 hexadecimal digits to the client's id.
_VLLM_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


class Places(NamedTuple):
    """Where each request is in the log's list.

    >>> Places({"chat-a": 0}, True).find("chat-a-0123abcd", "log"), Places({"3": 3}, False).find("000003", "log")
    (0, 3)
    """

    of_id: Mapping[str, int]
    named: bool  # whether requests have ids of their own; else an id is a place

    def find(self, value: Any, where: str) -> int:
        """Return the place of the request that an iteration names.

        Raises ValueError if there is none; `where` begins the sentence.
        """
        own = id_text(value, where)
        bare = _VLLM_SUFFIX.sub("", own)
        for text in (own, bare, "" if self.named or not bare.isdecimal() else str(int(bare))):
            if text in self.of_id:
                return self.of_id[text]
        remedy = (
            "check the ids in requests"
            if self.named
            else "add each request's id to its row, as a sixth item"
        )
        raise ValueError(f"{where}: there is no request {own!r}; {remedy}")


def id_text(value: Any, where: str) -> str:
    """Return an id as text: a string as it is, a whole number without a detour by floats.

    Raises ValueError if it is neither; `where` begins the sentence.

    >>> id_text(18446744073709551615, "log"), id_text("chat-a", "log")
    ('18446744073709551615', 'chat-a')
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{where}: the id {value!r} is neither a whole number nor a string")
    return str(value)


def read_requests(name: str, rows: Any) -> tuple[list[list[Any]], Places]:
    """Return the rows of requests without their ids, and where each request is.

    Raises ValueError if a row has another width, a length that is no whole number, or an id that
    another has too.
    """
    shape = (
        "[arrival_s, input, output, first_token_s, finish_s] or the same with an id, one "
        "width for all"
    )
    widths = (
        {len(row) if isinstance(row, list) else 0 for row in rows}
        if isinstance(rows, list)
        else {0}
    )
    if not widths <= {_TIMES} and not widths <= {_TIMES + 1}:
        raise ValueError(f"{name}: each of requests must be {shape}")
    of_id: dict[str, int] = {}
    for place, row in enumerate(rows):
        where = f"{name} request {place}"
        _check_request(row, where)
        own = id_text(row[_TIMES], where) if len(row) > _TIMES else str(place)
        if own in of_id:
            raise ValueError(
                f"{where}: its id {own!r} is that of request {of_id[own]} too; ids must differ"
            )
        of_id[own] = place
    return [row[:_TIMES] for row in rows], Places(of_id, widths == {_TIMES + 1})


def _check_request(row: list[Any], where: str) -> None:
    arrival_s, lengths, times = row[0], row[1:3], row[3:_TIMES]
    if not _is_number(arrival_s) or not all(time is None or _is_number(time) for time in times):
        raise ValueError(
            f"{where}: its times {[arrival_s, *times]} must be numbers, the last two may be null"
        )
    if not all(type(length) is int and length > 0 for length in lengths):
        raise ValueError(f"{where}: its lengths {lengths} must be whole numbers of 1 or more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Iteration(NamedTuple):
    """A row of a log: when it ran, and which requests, by their places."""

    start_s: float
    end_s: float
    items: list[list[int]]
    preempted: list[int]
    cached: dict[int, int]


def read_iteration(row: Any, places: Places, where: str) -> Iteration:
    """Return an iteration: start, end, [place, tokens], preempted, newcomers' cached tokens.

    Raises ValueError if it has another shape or names an unknown request; `where` begins the
    sentence.
    """
    try:
        start_s, end_s, items, preempted, *more = row
        (cached,) = more or [{}]
        pairs = [(request, tokens) for request, tokens in items]
        counts = [*(tokens for _, tokens in pairs), *(1 + tokens for tokens in cached.values())]
        right = (
            _is_number(start_s)
            and _is_number(end_s)
            and isinstance(preempted, list)
            and bool(pairs)
        )
    except (TypeError, ValueError, AttributeError):
        right = False
    if not right or not all(type(tokens) is int and tokens > 0 for tokens in counts):
        raise ValueError(
            f"{where}: it must be [start_s, end_s, [[request, tokens], ...], [preempted, ...]], "
            "and may have a fifth item {request: cached tokens}"
        )
    return Iteration(
        start_s,
        end_s,
        [[places.find(request, where), tokens] for request, tokens in pairs],
        [places.find(request, where) for request in preempted],
        {places.find(request, where): tokens for request, tokens in cached.items()},
    )
