"""The simulator's executor: a SimPy process that drives a policy with a step-time model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from math import inf
from typing import Any

import simpy

from busdoor.core.batch import Batch
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor.simulator.recorder import Recorder
from busdoor.simulator.stamps import stamp_begin, stamp_end
from busdoor.simulator.standstill import EndlessPreemption
from busdoor.simulator.stretch import Stretch, end_stretch, make_stretch
from busdoor.step_time.base import BatchAhead, StepTime
from busdoor_workloads import given

Process = Generator[simpy.Event, Any, None]
Requests = list[Request]


@mypyc_attr(allow_interpreted_subclasses=True)
class Server:
    """One model replica in a SimPy environment.

    Parameters
    ----------
    env : simpy.Environment
        Where it runs; put it beside your own processes.
    policy, step_time : Policy, StepTime
        The scheduler; seconds that an iteration takes.
    lookahead : {0, 1}
        When an iteration is decided: at the end of the one before, or while the one before still
        runs.
    step_by_step : bool
        Whether every iteration is an event of its own: the slow oracle, with the same results.
    recorder : Recorder, optional
        Records what happens.
    on_leave : callable, optional
        Called with every request that finishes, is refused or abandoned: for models of your own.

    Examples
    --------
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> env = simpy.Environment()
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=512, max_model_len=512)
    >>> server = Server(env, policy, LinearStepTime(base_s=0.010))
    >>> request = Request(0, 0.0, input_tokens=20, output_tokens=5)
    >>> server.submit(request)
    >>> env.run()
    >>> round(request.first_token_s, 3), round(request.finish_s, 3)
    (0.01, 0.05)
    """

    def __init__(
        self,
        env: simpy.Environment,
        policy: Policy,
        step_time: StepTime,
        *,
        lookahead: int = 0,
        step_by_step: bool = False,
        recorder: Recorder | None = None,
        on_leave: Callable[[Request], None] | None = None,
    ) -> None:
        given.instance("env", env, simpy.Environment, "a simpy.Environment")
        given.instance("policy", policy, Policy, "a Policy")
        given.instance("step_time", step_time, StepTime, "a StepTime")
        if lookahead not in (0, 1):
            raise ValueError(f"lookahead is {lookahead}; it must be 0 or 1")
        policy.begin_run()
        self.env = env
        self.policy = policy
        self.step_time = step_time
        self._line = step_time.line_function()
        self.lookahead = lookahead
        self.step_by_step = step_by_step
        self.recorder = recorder
        # Spares two calls per event where only requests are kept.
        self._batches = recorder if getattr(recorder, "keeps_batches", True) else None
        self.on_leave = on_leave
        self._fixed_from_s = -inf  # from when on an interruption changes nothing
        self._expected_s, self._since_s = inf, -inf
        self._stale = False  # whether the next batch was decided before what matters to it
        self._stretch: Stretch | None = None  # the running one, with its repetitions
        self._repeat = 1
        self._endless = EndlessPreemption(type(policy).__name__)
        self._gone: list[Request] = []  # running ones, abandoned during an iteration
        self._process = env.process(self._run())

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""
        asks = self.lookahead or self.env.now < self._fixed_from_s
        matters = asks and self.policy.would_admit(request)
        self.policy.add(request)
        if request.status != "waiting":
            self._leave(request)
        elif matters:
            self._cut()

    def expect(self, arrival_s: float, since_s: float = -inf) -> None:
        """Note when the next request may arrive, a hint: a stretch then ends uninterrupted.

        It is for stretches that begin at `since_s` or later.
        """
        self._expected_s, self._since_s = arrival_s, since_s

    def close(self) -> None:
        """Close: no request will arrive any more."""
        self.policy.close()
        self._cut()

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone; a running one stops when the iteration ends."""
        if request.status == "running":
            self._gone.append(request)
            self._cut()
        elif request.status == "waiting":
            self.policy.abandon(request)
            self._leave(request)
            # It may have stood before one that can enter.
            if self.policy.num_running < self.policy.num_slots:
                self._cut()

    def kv_blocks(self) -> int:
        """Return the KV blocks the running iteration takes, or the next if already decided."""
        if self._stretch is None:
            return self.policy.kv_blocks(1)
        running = self._stretch.repeats_until(self.env.now, self._repeat)
        return self.policy.kv_blocks(running + self.lookahead)

    def _cut(self) -> None:
        """Cut short what has been decided, so that the policy is asked again."""
        if self.env.now < self._fixed_from_s:
            self._fixed_from_s = -inf
            self._process.interrupt()
        else:
            self._stale = True

    def _run(self) -> Process:
        """Run iterations, each decided at the end of the one before, or with lookahead."""
        env, policy, ahead = self.env, self.policy, self.lookahead
        batch: Batch | None = None
        lead_s: float | None = None
        now = env.now
        while True:
            if batch is None:
                self._stale = False
                batch = policy.schedule(now)
            if batch is None:
                yield from self._sleep()
                now = env.now
                continue
            timed = self.step_time.ahead(batch, lead_s) if ahead else None
            stretch, repeat = self._begin(batch, timed, now)
            if repeat > ahead:
                cut = False
                try:
                    yield env.timeout(stretch.end_s(repeat - ahead) - now)
                except simpy.Interrupt:
                    cut = True
                if cut:  # a compiled generator that yields in `except` leaves the error to others
                    repeat = min(repeat, ahead + stretch.repeats_until(env.now, repeat))
                    yield env.timeout(max(0.0, stretch.end_s(repeat - ahead) - env.now))
            self._fixed_from_s = -inf
            chunks = batch.chunks
            firsts = [chunk.request for chunk in chunks if chunk.completes] if chunks else []
            finished = policy.complete(batch, repeat)
            following = None
            if ahead:
                self._stretch = None  # from here on the policy speaks of the next batch
                self._drop_gone()
                self._stale = False
                following = policy.schedule(env.now)
                if timed:
                    stretch, lead_s = end_stretch(stretch, timed, repeat, following)
                yield env.timeout(max(0.0, stretch.end_s(repeat) - env.now))
            now = env.now
            self._end(batch, stretch, repeat, firsts, finished, now)
            if self._gone and not ahead:
                self._drop_gone()
            batch = following

    def _sleep(self) -> Process:
        """Wait for an arrival, or for the time at which the policy wants to be asked again."""
        left_s = max(0.0, self.policy.next_wakeup_s() - self.env.now)
        self._fixed_from_s = inf
        with suppress(simpy.Interrupt):
            yield self.env.timeout(left_s) if left_s < inf else self.env.event()
        self._fixed_from_s = -inf

    def _begin(self, batch: Batch, timed: BatchAhead | None, now: float) -> tuple[Stretch, int]:
        """Stamp the requests that enter and those that are preempted; time the batch."""
        if batch.preempted or self._endless.watching:
            self._endless.check(batch)
        if batch.admitted or batch.preempted:
            stamp_begin(batch, now)
        if self._batches:
            self._batches.begin(batch, now)
        single = self.step_by_step or (self._stale and self.lookahead) or (timed and timed.single)
        repeat = 1 if single else self.policy.stretch(batch)
        line = timed.line(batch) if timed else self._line(batch)
        stretch = make_stretch(timed or self.step_time, line, batch, now, repeat)
        if repeat > 1:
            repeat = self._until_expected(stretch, repeat)
            if repeat > 1 + self.lookahead:
                self._fixed_from_s = stretch.end_s(repeat - 1 - self.lookahead)
        self._stretch, self._repeat = stretch, repeat
        return stretch, repeat

    def _until_expected(self, stretch: Stretch, repeat: int) -> int:
        """End a stretch in the iteration where the next request is expected, if it could enter."""
        if not self._since_s <= stretch.start_s < self._expected_s < stretch.end_s(repeat):
            return repeat
        if self.policy.num_waiting or self.policy.num_running >= self.policy.num_slots:
            return repeat
        return min(repeat, stretch.repeats_until(self._expected_s, repeat) + self.lookahead)

    def _end(
        self,
        batch: Batch,
        stretch: Stretch,
        repeat: int,
        firsts: Requests,
        finished: Requests,
        now: float,
    ) -> None:
        """Stamp the tokens that are out, and release the finished requests."""
        if self._batches:
            self._batches.end(batch, stretch, repeat, firsts, now)
        if not (firsts or finished or batch.released):
            return
        released = stamp_end(batch, firsts, finished, self.policy.streams, now)
        if self.on_leave:
            for request in finished:
                self.on_leave(request)
        if self.recorder:
            for request in released:
                self.recorder.left(request, now)

    def _drop_gone(self) -> None:
        while self._gone:
            request = self._gone.pop()
            if request.status in ("running", "waiting"):
                self.policy.abandon(request)
                self._leave(request)

    def _leave(self, request: Request) -> None:
        """Release a request that was refused or abandoned."""
        if self.recorder:
            self.recorder.left(request, self.env.now)
        if self.on_leave:
            self.on_leave(request)
