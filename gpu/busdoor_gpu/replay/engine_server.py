"""The second executor: the simulator's server; the engine runs and a clock times it."""

from __future__ import annotations

from array import array
from collections.abc import Generator
from math import isinf, nan
from typing import Any

import simpy

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server
from busdoor.simulator.stretch import Stretch
from busdoor.step_time.base import LineStepTime
from busdoor_gpu.engine.engine import Engine
from busdoor_gpu.engine.passes import Running
from busdoor_gpu.engine.slots import EngineError
from busdoor_gpu.replay.clocks import Clock

Process = Generator[simpy.Event, Any, None]


class Measured(LineStepTime):
    """Stands in for the simulator's step time: durations are measured, not modelled."""

    def __init__(self, **how: Any) -> None:
        self._how = how

    def line(self, batch: Batch) -> tuple[float, float]:
        """Return zeros: the duration is not known before the iteration has run."""
        return 0.0, 0.0

    def describe(self) -> dict[str, Any]:
        """Return how it was measured, for a result's meta.json."""
        return {"name": "measured", **self._how}


class EngineServer(Server):
    """One replica on real hardware, in a simulated one's environment, with its clients.

    Time passes in the environment as the clock measures it: an iteration lasts from the end of the
    previous one (or from the arrival that ended idleness) until its own end, with all that the host
    did in between. So the simulator, given the durations in the result, makes the same batches.

    The engine is made for this policy. `device_s` and `host_s` have, of each iteration, seconds on
    the device, and seconds that the host worked, without waiting; `present` the requests that have
    arrived and not left.
    """

    def __init__(
        self,
        env: simpy.Environment,
        policy: Policy,
        engine: Engine,
        clock: Clock,
        recorder: TableRecorder,
        **options: Any,
    ) -> None:
        super().__init__(env, policy, Measured(), step_by_step=True, recorder=recorder, **options)
        self.engine = engine
        self.clock = clock
        self.device_s, self.host_s = array("d"), array("d")
        self.present: dict[Request, None] = {}
        self._left = self.on_leave
        self.on_leave = self._forget
        self._slept_at_s = nan

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""
        self.present[request] = None
        super().submit(request)

    def _forget(self, request: Request) -> None:
        self.present.pop(request, None)
        if self._left:
            self._left(request)

    def _run(self) -> Process:
        return self._run_ahead() if self.lookahead else self._run_in_turn()

    def _run_in_turn(self) -> Process:
        """Schedule an iteration at the end of the previous one."""
        env, policy = self.env, self.policy
        while True:
            batch = policy.schedule(env.now)
            if batch is None:
                yield from self._sleep()
                continue
            running = self.engine.submit(batch)
            self._begin(batch, None, env.now)
            firsts = [chunk.request for chunk in batch.chunks if chunk.completes]
            stretch = self._finish(running)
            yield env.timeout(stretch.end_s(1) - env.now)
            self._end(batch, stretch, 1, firsts, policy.complete(batch, 1), env.now)
            self._drop_gone()

    def _run_ahead(self) -> Process:
        """Schedule and submit an iteration while the previous one still runs."""
        env, policy = self.env, self.policy
        batch: Batch | None = None
        running: Running | None = None
        while True:
            if batch is None or running is None:
                batch = policy.schedule(env.now)
                if batch is None:
                    yield from self._sleep()
                    continue
                running = self.engine.submit(batch)
            self._begin(batch, None, env.now)
            firsts = [chunk.request for chunk in batch.chunks if chunk.completes]
            # lengths are forced: what finishes is known before the run
            finished = policy.complete(batch, 1)
            self._drop_gone()
            following = policy.schedule(env.now)
            next_running = self.engine.submit(following) if following else None
            stretch = self._finish(running)
            yield env.timeout(stretch.end_s(1) - env.now)
            self._end(batch, stretch, 1, firsts, finished, env.now)
            batch, running = following, next_running

    def _finish(self, running: Running) -> Stretch:
        """Wait for a step and measure it."""
        device_s, waited_s = self.engine.finish(running)
        duration_s, pace = self.clock.since_s(self.env.now), self.clock.pace
        self.device_s.append(device_s * pace)
        self.host_s.append(max(0.0, duration_s - waited_s * pace))
        return Stretch(self.env.now, duration_s, 0.0)

    def _sleep(self) -> Process:
        """Wait for an arrival or for the policy's next wakeup."""
        if self.env.now == self._slept_at_s and not isinf(self.policy.next_wakeup_s()):
            raise EngineError(
                f"{self._standstill()}, although its wakeup was at {self.env.now:.6g} s"
            )
        self._slept_at_s = self.env.now
        wakeup_s = self.policy.next_wakeup_s()
        yield from super()._sleep()
        if self.env.now < wakeup_s:
            self._slept_at_s = nan  # a request came
        self.clock.wait_until(self.env.now)

    def check_served(self) -> None:
        """Raise EngineError if requests are left and nothing will happen any more."""
        if self.present:
            raise EngineError(self._standstill())

    def _standstill(self) -> str:
        policy = self.policy
        return (
            f"{type(policy).__name__} schedules nothing while {policy.num_waiting} requests wait "
            f"and {policy.num_running} hold a slot"
        )
