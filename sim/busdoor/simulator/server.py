"""The simulator's executor: a SimPy process that drives a policy with a step-time model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from math import inf, isnan
from typing import Any

import simpy

from busdoor.core.batch import Batch
from busdoor.core.request import Request, stamp_first_tokens
from busdoor.policies.base import Policy
from busdoor.simulator.recorder import Recorder
from busdoor.simulator.standstill import EndlessPreemption
from busdoor.simulator.stretch import EndedStretch, Stretch, check_duration, make_stretch
from busdoor.step_time.base import StepTime
from busdoor_workloads import given

Process = Generator[simpy.Event, Any, None]

# An arrival so little (relatively) after an iteration's end counts as before it: rounding cannot change a batch.
EARLY = 1e-12


class Server:
    """One model replica in a SimPy environment.

    Parameters
    ----------
    env : simpy.Environment
        Where it runs; put it beside your own processes.
    policy, step_time : Policy, StepTime
        The scheduler; seconds that an iteration takes.
    lookahead : {0, 1}
        When an iteration is decided: at the end of the one before, or while the one before still runs.
    step_by_step : bool
        Whether every iteration is an event of its own. The results are the same; it is the slow oracle.
    recorder : Recorder, optional
        Records what happens.
    on_leave : callable, optional
        Called with every request that finishes, is refused or abandoned: for closed loops and your own models.

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
        self.lookahead = lookahead
        self.step_by_step = step_by_step
        self.recorder = recorder
        self.on_leave = on_leave
        self._fixed_from_s = -inf  # from when on an interruption would not change how long the process sleeps
        self._expected_s = inf
        self._stale = False  # whether the batch that comes next was decided before the last change that matters to it
        self._stretch: Stretch | None = None  # the one that runs, and its repetitions: for questions where it is
        self._repeat = 1
        self._endless = EndlessPreemption(type(policy).__name__)
        self._gone: list[Request] = []  # running requests whose clients went away during an iteration
        self._process = env.process(self._run_ahead() if lookahead else self._run())

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""
        matters = (self.lookahead or self.env.now < self._fixed_from_s) and self.policy.would_admit(request)
        self.policy.add(request)
        if request.status != "waiting":
            self._leave(request)
        elif matters:
            self._cut()

    def expect(self, arrival_s: float) -> None:
        """Note when the next request may arrive, if known: a stretch then ends in time and need not be interrupted.

        A hint that saves time, no more: an unannounced request interrupts, and nothing is lost if none comes.
        """
        self._expected_s = arrival_s

    def close(self) -> None:
        """Close: no request will arrive any more."""
        self.policy.close()
        self._cut()

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone; one that runs stops at the end of the iteration."""
        if request.status == "running":
            self._gone.append(request)
            self._cut()
        elif request.status == "waiting":
            self.policy.abandon(request)
            self._leave(request)
            if self.policy.num_running < self.policy.num_slots:  # it may have stood before one that can enter
                self._cut()

    def kv_blocks(self) -> int:
        """Return the KV blocks that the running iteration takes, or the next where that is decided already."""
        stretch = self._stretch
        if stretch is None:
            return self.policy.kv_blocks(1)
        return self.policy.kv_blocks(stretch.repeats_until(self.env.now, self._repeat) + self.lookahead)

    def _cut(self) -> None:
        """Cut short what has been decided, so that the policy is asked again."""
        if self.env.now < self._fixed_from_s:
            self._fixed_from_s = -inf
            self._process.interrupt()
        else:
            self._stale = True

    def _run(self) -> Process:
        """Decide an iteration at the end of the one before."""
        env, policy = self.env, self.policy
        while True:
            batch = policy.schedule(env.now)
            if batch is None:
                yield from self._sleep()
                continue
            stretch, repeat = self._begin(batch)
            try:
                yield env.timeout(stretch.end_s(repeat) - env.now)
            except simpy.Interrupt:
                repeat = stretch.repeats_until(env.now, repeat)
                yield env.timeout(max(0.0, stretch.end_s(repeat) - env.now))
            self._fixed_from_s = -inf
            firsts = [chunk.request for chunk in batch.chunks if chunk.completes]
            self._end(batch, stretch, repeat, firsts, policy.complete(batch, repeat))
            if self._gone:
                self._drop_gone()

    def _run_ahead(self) -> Process:
        """Decide an iteration while the one before still runs: at the start of its last repetition."""
        env, policy = self.env, self.policy
        batch: Batch | None = None
        while True:
            from_idle = batch is None
            batch = batch or self._schedule_ahead()
            if batch is None:
                yield from self._sleep()
                continue
            stretch, repeat = self._begin(batch)
            if repeat > 1:
                try:
                    yield env.timeout(stretch.end_s(repeat - 1) - env.now)
                except simpy.Interrupt:
                    repeat = min(repeat, 1 + stretch.repeats_until(env.now, repeat))
                    yield env.timeout(max(0.0, stretch.end_s(repeat - 1) - env.now))
            self._fixed_from_s = -inf
            firsts = [chunk.request for chunk in batch.chunks if chunk.completes]
            finished = policy.complete(batch, repeat)
            self._stretch = None  # from here on the policy speaks of the next batch
            self._drop_gone()
            following = self._schedule_ahead()
            last_s = self.step_time.last_s(batch, repeat, following, from_idle)
            if last_s is not None:
                check_duration(self.step_time, last_s)
                stretch = EndedStretch(stretch, repeat, last_s)
            yield env.timeout(max(0.0, stretch.end_s(repeat) - env.now))
            self._end(batch, stretch, repeat, firsts, finished)
            batch = following

    def _schedule_ahead(self) -> Batch | None:
        self._stale = False
        return self.policy.schedule(self.env.now)

    def _sleep(self) -> Process:
        """Wait for an arrival, or for the time at which the policy wants to be asked again."""
        wakeup_s = self.policy.next_wakeup_s()
        self._fixed_from_s = inf
        with suppress(simpy.Interrupt):
            yield self.env.timeout(max(0.0, wakeup_s - self.env.now)) if wakeup_s < inf else self.env.event()
        self._fixed_from_s = -inf

    def _begin(self, batch: Batch) -> tuple[Stretch, int]:
        """Stamp the requests that enter and those that are preempted; time the batch."""
        now = self.env.now
        if batch.preempted or self._endless.watching:
            self._endless.check(batch)
        for request in batch.admitted:
            if isnan(request.first_scheduled_s):
                request.first_scheduled_s = max(now, request.arrival_s)
        for request in batch.preempted:
            if isnan(request.last_token_s) and request.generated_tokens:
                request.last_token_s = now
        if self.recorder:
            self.recorder.begin(batch, now)
        repeat = 1 if self.step_by_step or (self._stale and self.lookahead) else self.policy.stretch(batch)
        stretch = make_stretch(self.step_time, batch, now, repeat)
        if repeat > 1:
            repeat = self._until_expected(stretch, repeat)
            self._fixed_from_s = stretch.end_s(repeat - 1 - self.lookahead) if repeat > 1 + self.lookahead else -inf
        self._stretch, self._repeat = stretch, repeat
        return stretch, repeat

    def _until_expected(self, stretch: Stretch, repeat: int) -> int:
        """End a stretch in the iteration in which the next request is expected, if it could enter at once."""
        if not stretch.start_s < self._expected_s < stretch.end_s(repeat):
            return repeat
        if self.policy.num_waiting or self.policy.num_running >= self.policy.num_slots:
            return repeat
        return min(repeat, stretch.repeats_until(self._expected_s, repeat) + self.lookahead)

    def _end(self, batch: Batch, stretch: Stretch, repeat: int, firsts: list[Request], finished: list[Request]) -> None:
        """Stamp the tokens that are out, and release the finished requests."""
        now, recorder = self.env.now, self.recorder
        if recorder:
            recorder.end(batch, stretch, repeat, firsts, now)
        if firsts or finished:
            stamp_first_tokens(firsts if self.policy.streams else finished, now)
        for request in finished:
            request.finish_s = now
            if self.on_leave:
                self.on_leave(request)
        for request in finished if batch.released is None else batch.released:
            request.released_s = now
            if recorder:
                recorder.left(request, now)

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
