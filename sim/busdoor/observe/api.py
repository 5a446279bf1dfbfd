"""Observe a server: send a trace to it, and keep every time that the client saw."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import time
from typing import Any
from uuid import uuid4

import aiohttp
import numpy as np

from busdoor.core.progress import Report
from busdoor.observe.client import Answer, Target, ask, connection_times
from busdoor.observe.how import How
from busdoor.observe.load import Load, send_all
from busdoor.observe.observation import Observation, observation
from busdoor.observe.prompts import Prompts
from busdoor.observe.static_batches import Batch, as_static, send_in_batches
from busdoor.observe.step_log import request_name
from busdoor.observe.watch import (
    ServerError,
    metrics_page,
    models_of,
    server_table,
    state,
    version_of,
    watch,
)
from busdoor_workloads import Trace

# Prompts of 16 and answers of 4 tokens touch prefill and decode.
_WARM_LENGTHS = (16, 4)
_LEAD_S = 0.1  # between the last preparation and the trace's time 0
_REPORT_S = 0.5


def observe(
    url: str,
    trace: Trace,
    how: How | None = None,
    *,
    meta: Mapping[str, Any] | None = None,
    progress: Report | None = None,
) -> Observation:
    """Send a trace to an OpenAI-compatible server and measure its answers.

    `url` is as in http://127.0.0.1:8000; `concurrency` of the trace makes a closed loop; `meta` is
    what else the result's meta should say; `progress` is called with the share that is done and
    what is being done. After Ctrl-C what was there is returned, and `result.meta["complete"]` is
    false. ServerError if nothing answers at the address, or something that is no such server.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.observe.stand_in import stand_in
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=512,
    ...                     max_model_len=512)
    >>> trace = Trace(arrival_s=[0.0, 0.01], input_tokens=[20, 30], output_tokens=[5, 3])
    >>> with stand_in(policy, LinearStepTime(base_s=0.005)) as address:
    ...     seen = observe(address, trace)
    >>> seen.result.requests["output_tokens"].tolist(), len(seen.chunks)
    ([5, 3], 8)
    """
    run = _Run(url.rstrip("/"), trace, how or How(), progress)
    try:
        asyncio.run(run.all())
    except KeyboardInterrupt:
        if run.target is None:
            raise
    return run.observed({**(meta or {}), "complete": run.complete})


class _Run:
    """One observation while it runs; what it has is there after an interruption too."""

    def __init__(self, url: str, trace: Trace, how: How, progress: Report | None) -> None:
        self.url = url
        self.trace = trace
        self.how = how
        self.run = uuid4().hex[:8]
        self.target: Target | None = None
        self.complete = False
        self._progress = progress
        self._answers: list[Answer | None] = [None] * len(trace)
        self._states: list[dict[str, float]] = []
        self._load = Load(np.full(len(trace), np.nan))
        self._batches: list[Batch] = []
        self._start_s = 0.0
        self._sent = self._done = self._failed = 0
        self._about: dict[str, Any] = {"started_at": time()}
        # With the run's own name: no run finds prompts of an earlier one in a prefix cache.
        self._prompts = Prompts(trace, how.seed, int(self.run, 16))

    async def all(self) -> None:
        """Ask the server about itself, warm it up, send everything."""
        headers = {"Authorization": f"Bearer {self.how.key}"} if self.how.key else {}
        connector = aiohttp.TCPConnector(limit=0)  # aiohttp's own limit of 100 would be a queue
        async with aiohttp.ClientSession(
            headers=headers,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[connection_times()],
        ) as session:
            target = await self._meet(session)
            await self._warm_up(session, target)
            self.target = target
            self._about["before"] = state(await metrics_page(session, self.url))
            watching = asyncio.create_task(self._watch(session))
            try:
                await self._send_all(session, target)
                self.complete = True
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
            self._about["after"] = state(await metrics_page(session, self.url))

    async def _meet(self, session: aiohttp.ClientSession) -> Target:
        """Ask the server for its models and memory; return the one to send to."""
        models = await models_of(session, self.url)
        name = self.how.model or next(iter(models))
        if name not in models or (self.how.model is None and len(models) > 1):
            raise ServerError(
                f"{self.url} serves {', '.join(models)}; "
                + (f"not {name}" if self.how.model else "choose one with --model")
            )
        page = await metrics_page(session, self.url)
        self._about |= {
            "url": self.url,
            "served_model": name,
            "server_version": await version_of(session, self.url),
            **server_table(page, models[name]),
        }
        return Target(self.url, name, self.how.api)

    async def _warm_up(self, session: aiohttp.ClientSession, target: Target) -> None:
        """Send a few requests, which also show whether the server answers as it must."""
        inputs, outputs = _WARM_LENGTHS
        size = max(1, self.how.warm_up)
        few = Trace(
            arrival_s=np.zeros(size),
            input_tokens=np.full(size, inputs),
            output_tokens=np.full(size, outputs),
        )
        prompts = Prompts(few, self.how.seed, int(self.run, 16) + 1)
        for row in range(size):
            answer = Answer()
            await ask(session, target, target.data(self._prompt(prompts, row), outputs), answer)
            if answer.error:
                raise ServerError(f"{self.url} does not answer a request: {_fault(answer)}")

    async def _send_all(self, session: aiohttp.ClientSession, target: Target) -> None:
        loop = asyncio.get_running_loop()
        self._start_s = loop.time() + _LEAD_S
        timeouts = self.trace.timeout_s

        ready: dict[int, bytes] = {}

        def prepare(row: int, output_tokens: int | None = None) -> bytes:
            asked = int(self.trace.output_tokens[row]) if output_tokens is None else output_tokens
            ready[row] = target.data(self._prompt(self._prompts, row), asked)
            return ready[row]

        async def send(row: int, output_tokens: int | None = None) -> None:
            data = ready.get(row) or prepare(row, output_tokens)
            del ready[row]
            limit_s = None if timeouts is None else float(timeouts[row])
            own = limit_s if limit_s and np.isfinite(limit_s) else None
            self._sent += 1
            answer = self._answers[row] = Answer()  # there from the start: an interruption keeps it
            await ask(
                session, target, data, answer, request_id=request_name(self.run, row), timeout_s=own
            )
            self._done += 1
            self._failed += bool(answer.error)

        trace, start_s, load, size = self.trace, self._start_s, self._load, self.how.static
        if size:
            await send_in_batches(trace, size, send, start_s, load, self._batches)
        else:
            await send_all(
                trace,
                send,
                start_s=start_s,
                max_in_flight=self.how.max_in_flight,
                load=load,
                prepare=prepare,
            )

    def _prompt(self, prompts: Prompts, row: int) -> list[int] | str:
        return prompts.text(row) if self.how.api == "chat" else prompts.token_ids(row)

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Sample the server's state, and report how far the load is."""
        await asyncio.gather(
            watch(session, self.url, asyncio.get_running_loop().time(), self._states),
            self._report(),
        )

    async def _report(self) -> None:
        while self._progress is not None:
            open_now = self._sent - self._done
            text = f"{self._done:,} of {len(self.trace):,} answered, {open_now:,} in flight"
            failed = f", {self._failed:,} failed" if self._failed else ""
            self._progress(self._done / max(1, len(self.trace)), text + failed)
            await asyncio.sleep(_REPORT_S)

    def observed(self, meta: Mapping[str, Any]) -> Observation:
        """Return what is there."""
        noted = {
            **self._about,
            "run": self.run,
            "start_monotonic_s": self._start_s,
            "api": self.how.api,
            "max_in_flight": self.how.max_in_flight,
            "concurrency": self.trace.concurrency,
            **meta,
        }
        start_s = self._start_s
        seen = observation(self.trace, self._answers, self._load, start_s, self._states, noted)
        return as_static(seen, self.trace, self._batches, start_s) if self.how.static else seen


def _fault(answer: Answer) -> str:
    status = f"HTTP {answer.http_status}: " if answer.http_status not in (0, 200) else ""
    return status + answer.error
