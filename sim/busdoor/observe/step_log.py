"""The log of `vllm_recorder`, as the same result that the simulator and our engine write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from busdoor.calibration.vllm_log import result_of_log
from busdoor.results.result import Result

# After a run: its server is empty, and its log on the disk (within 0.5 s).
SETTLE_S = 1.5
# The ids of one observation's requests, as `observe` sends them: vLLM puts "cmpl-" or "chatcmpl-"
# before them, and the number of the prompt (completions) and 8 hexadecimal digits behind.
_ID = re.compile(r"busdoor-([0-9a-z]+)-(\d+)(?:-\d+)?(?:-[0-9a-f]{8})?$")


def request_name(run: str, row: int) -> str:
    """Return the X-Request-Id of a request of one observation.

    >>> request_name("a1b2", 7), row_of(f"cmpl-{request_name('a1b2', 7)}-0-0123abcd", "a1b2")
    ('busdoor-a1b2-7', 7)
    """
    return f"busdoor-{run}-{row}"


def row_of(name: str, run: str) -> int | None:
    """Return the row of a request of this observation, by the engine's name for it; else None."""
    found = _ID.search(name)
    return int(found.group(2)) if found and found.group(1) == run else None


@dataclass
class _Request:
    taken_s: float  # when vLLM's front end took it
    arrival_s: float  # when the engine saw it, between two iterations
    input_tokens: int
    computed: int = 0
    output_tokens: int = 0
    first_token_s: float | None = None
    finish_s: float | None = None


@dataclass
class StepLog:
    """What a server recorded: its settings, and requests by the engine's name.

    `iterations` are rows of a log of vLLM's engine, by the server's clock: start, end, items,
    preempted, entered.
    """

    config: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, _Request] = field(default_factory=dict)
    iterations: list[list[Any]] = field(default_factory=list)


def read_step_log(path: str | Path) -> StepLog:
    """Read a recorder's file; a last line that was cut off by a kill is left out.

    ValueError if it is no such file.
    """
    log, reader = StepLog(), _Reader()
    for number, line in enumerate(_lines(Path(path))):
        if number == 0 and "config" not in line:
            break
        reader.take(line, log)
    if not log.config:
        raise ValueError(
            f"{path} is no log of busdoor's recorder for vLLM: its first line has no config"
        )
    return log


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                return  # cut off
            if isinstance(line, dict):
                yield line


class _Reader:
    """Joins the beginning and the end of each iteration."""

    def __init__(self) -> None:
        self._begun: dict[int, list[Any]] = {}
        self._new: list[_Request] = []  # since the last batch was decided
        self._ended_s = 0.0

    def take(self, line: Mapping[str, Any], log: StepLog) -> None:
        if "config" in line:
            log.config = dict(line["config"])
        elif "add" in line:
            name, taken_s, num_tokens, seen_s = line["add"]
            log.requests[name] = _Request(taken_s, seen_s, num_tokens)
            self._new.append(log.requests[name])
        elif "step" in line:
            self._begun[line["step"][0]] = line["step"]
            self._admit(line["step"])
        elif "end" in line:
            number, end_s, done = line["end"]
            if number in self._begun:
                self._end(self._begun.pop(number), end_s, done, log)

    def _admit(self, step: list[Any]) -> None:
        """Date the new requests to the start of the iteration that could take them.

        The engine looks for them when an iteration has ended, some 0.1 ms after; an idle engine,
        when the first one comes.
        """
        _, _, items, _, entered, *_ = step
        busy = bool(set(items) - set(entered))
        begin_s = self._ended_s if busy else min((one.arrival_s for one in self._new), default=0.0)
        for one in self._new:
            one.arrival_s = min(one.arrival_s, begin_s)
        self._new = []

    def _end(self, step: list[Any], end_s: float, done: list[str], log: StepLog) -> None:
        _, scheduled_s, items, preempted, entered, *_ = step
        # With async scheduling a batch is decided while the one before still runs.
        start_s = max(scheduled_s, self._ended_s)
        self._ended_s = end_s
        for name in preempted:
            log.requests[name].computed = 0
        for name, num_tokens in items.items():
            self._run(log.requests[name], num_tokens, entered.get(name, 0), end_s)
        for name in done:
            log.requests[name].finish_s = end_s
        log.iterations.append(
            [start_s, end_s, [list(item) for item in items.items()], preempted, entered]
        )

    @staticmethod
    def _run(request: _Request, num_tokens: int, cached: int, end_s: float) -> None:
        request.computed = max(request.computed, cached) + num_tokens
        if request.computed >= request.input_tokens + request.output_tokens:
            request.output_tokens += 1
            if request.first_token_s is None:
                request.first_token_s = end_s


def engine_result(
    log: StepLog, start_s: float, run: str, name: str, about: Mapping[str, Any] | None = None
) -> Result:
    """Return what the engine did for one observation, in seconds from the observation's start.

    A request arrives when the engine sees it, which is between two iterations, so that the batches
    can be repeated; `taken_s` is when the server's front end took it. `start_s` is the
    observation's time 0 by the server's monotonic clock, `run` its name in the ids of its requests,
    `about` what else the result's meta should say. ValueError if the log has no request of the
    observation, or requests of others ran beside them.
    """
    rows = {key: row for key in log.requests if (row := row_of(key, run)) is not None}
    if not rows:
        raise ValueError(
            f"the log has no request of {name}: was it this server's, with this X-Request-Id?"
        )
    own = [one for one in log.iterations if any(key in rows for key, _ in one[2])]
    foreign = {key for one in own for key, _ in one[2]} - set(rows)
    if foreign:
        raise ValueError(
            f"{len(foreign)} requests of other clients ran beside those of {name}; "
            "observe a server that serves no one else"
        )
    names = sorted(rows, key=lambda key: log.requests[key].arrival_s)
    requests = [_row(log.requests[key], start_s, key) for key in names]
    iterations = [
        [begin_s - start_s, end_s - start_s, items, preempted, entered]
        for begin_s, end_s, items, preempted, entered in own
    ]
    document = {"config": log.config, "requests": requests, "iterations": iterations}
    settings = log.config
    noted = {
        "lookahead": int(bool(settings.get("async_scheduling"))),
        "engine_version": settings.get("vllm", ""),
        "client_rows": [rows[key] for key in names],
    }
    result = result_of_log(name, document, {**noted, **(about or {})})
    table = result.requests.assign(taken_s=[log.requests[key].taken_s - start_s for key in names])
    return replace(result, requests=table)


def recorded_run(path: str | Path, meta: Mapping[str, Any], name: str) -> Result:
    """Return what the engine recorded of an observation, by the observation's meta.

    ValueError as `read_step_log` and `engine_result`.
    """
    return engine_result(read_step_log(path), meta["start_monotonic_s"], meta["run"], name)


def _row(request: _Request, start_s: float, key: str) -> list[Any]:
    times = [request.first_token_s, request.finish_s]
    return [
        request.arrival_s - start_s,
        request.input_tokens,
        max(request.output_tokens, 1),
        *(None if at is None else at - start_s for at in times),
        key,
    ]
