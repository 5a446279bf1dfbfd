"""A simulated server in real time: SimPy in its own thread, requests from outside."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from threading import Condition, Thread
from time import monotonic

import simpy
from simpy.rt import RealtimeEnvironment

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor.simulator.server import Server
from busdoor.simulator.stretch import Stretch
from busdoor.step_time.base import StepTime

Deliver = Callable[[list[tuple[Request, int]]], None]
"""Called in the simulation's thread after each iteration with the requests that got tokens, and how
many; 0 for one that left without any."""


class LiveServer:
    """One simulated replica that runs as fast as the clock on the wall.

    `policy` is a fresh scheduler, `deliver` receives the tokens that leave the server, `lookahead`
    (0 or 1) is when an iteration is decided, as in `simulate`; `counts` has what was done so far.

    >>> from threading import Event
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=512,
    ...                     max_model_len=512)
    >>> received, done = [], Event()
    >>> def deliver(tokens):
    ...     received.extend(number for _, number in tokens)
    ...     if any(request.status == "finished" for request, _ in tokens):
    ...         done.set()
    >>> with LiveServer(policy, LinearStepTime(base_s=0.001), deliver) as server:
    ...     server.submit(Request(0, 0.0, input_tokens=20, output_tokens=3)).result()
    ...     done.wait(5)
    'waiting'
    True
    >>> received
    [1, 1, 1]
    """

    def __init__(
        self, policy: Policy, step_time: StepTime, deliver: Deliver, *, lookahead: int = 0
    ) -> None:
        self.policy = policy
        self.counts = Counts()
        self._deliver = deliver
        self._env = RealtimeEnvironment(strict=False)  # it may lag behind; events keep their order
        self._server = Server(
            self._env,
            policy,
            step_time,
            lookahead=lookahead,
            step_by_step=True,  # every iteration yields tokens at a time of its own
            recorder=self,
        )
        self._decoding: list[Request] = []
        self._inbox: list[tuple[float, Callable[[], None]]] = []  # and when each is due
        self._changed = Condition()
        self._stopped = False
        self._thread = Thread(target=self._run, name="busdoor simulation", daemon=True)

    def __enter__(self) -> LiveServer:
        self._env.sync()
        self._origin_s = monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def now_s(self) -> float:
        """Return the seconds since the server was started."""
        return monotonic() - self._origin_s

    def submit(self, request: Request, delay_s: float = 0.0) -> Future[str]:
        """Submit a request that reaches the scheduler after a delay: its front end.

        The future is its status when it has entered: "waiting", or "refused: <reason>". Cancelled
        before, the request never enters.
        """
        entered: Future[str] = Future()

        def enter() -> None:
            if entered.set_running_or_notify_cancel():
                request.arrival_s = self._env.now
                self._server.submit(request)
                entered.set_result(request.status)

        self._put(enter, delay_s)
        return entered

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone."""
        self._put(lambda: self._server.abandon(request))

    def _put(self, action: Callable[[], None], delay_s: float = 0.0) -> None:
        due_s = self.now_s() + delay_s
        with self._changed:
            self._inbox.append((due_s, action))
            self._changed.notify()

    def _run(self) -> None:
        """Run events when they are due, those that come from outside too."""
        env = self._env
        while True:
            with self._changed:
                while not self._inbox and not self._stopped and env.peek() > self.now_s():
                    due_s = env.peek()
                    self._changed.wait(None if due_s == inf else max(0.0, due_s - self.now_s()))
                if self._stopped:
                    return
                inbox, self._inbox = self._inbox, []
            for due_s, action in inbox:
                self._at(due_s, action)
            if env.peek() <= self.now_s():
                env.step()

    def _at(self, due_s: float, action: Callable[[], None]) -> None:
        """Make an event of an action, so that it finds the environment at its time."""
        event: simpy.Event = self._env.timeout(max(0.0, due_s - self._env.now))
        assert event.callbacks is not None
        event.callbacks.append(lambda _: action())

    def begin(self, batch: Batch, now_s: float) -> None:
        """Note which requests decode in this iteration."""
        chunks = {chunk.request for chunk in batch.chunks}
        items = self.policy.items(batch)
        self._decoding = [request for request, _ in items if request not in chunks]
        self.counts.preemptions += len(batch.preempted)
        self.counts.prompt_tokens += batch.num_prefill_tokens
        for request in batch.admitted:
            self.counts.prefix_queries += request.input_tokens
            self.counts.prefix_hits += request.cached_tokens

    def end(
        self, batch: Batch, stretch: Stretch, repeat: int, firsts: list[Request], now_s: float
    ) -> None:
        """Deliver the iteration's tokens, unless the policy keeps them until the batch ends."""
        if self.policy.streams:  # first tokens first: that of a later token is not waited for alone
            self._emit([(request, 1) for request in (*firsts, *self._decoding)])

    def left(self, request: Request, now_s: float) -> None:
        """Deliver a whole answer if the policy kept it, and the end of one broken off."""
        if request.status != "finished":
            self._emit([(request, 0)])
        elif not self.policy.streams:
            self._emit([(request, request.output_tokens)])

    def _emit(self, tokens: list[tuple[Request, int]]) -> None:
        self.counts.generation_tokens += sum(number for _, number in tokens)
        self._deliver(tokens)


@dataclass
class Counts:
    """What a live server has done since it was started, in vLLM's counters."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
