"""Subclasses in Python of every public base, properties included; CI runs it compiled (`.ci/run`).

There a base is no Python class: a mistake may end the interpreter, and pytest says in which test.
"""

import numpy as np
import pandas as pd
import pytest
import simpy

from busdoor.core.batch import Batch
from busdoor.core.compiled import is_compiled
from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies import POLICIES, Policy, policy_config
from busdoor.policies.base import KVUse
from busdoor.policies.config import BUILDERS
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import simulate
from busdoor.step_time import make_step_time
from busdoor.step_time.base import BatchAhead, LineStepTime, StepTime
from busdoor_workloads import Trace, profile

KV = KVConfig(block_size=16, num_blocks=1_000, max_model_len=14_000)
TRACE = profile("azure-conv").generate(seed=3, num_requests=60, request_rate=6.0)
LINEAR = make_step_time("linear", base_s=0.005, per_token_s=2e-5, per_context_s=5e-8)


def overriding(base, names):
    """Return a subclass that notes which of some methods and properties are asked for."""

    def noted(name):
        def method(self, *given):
            kind.asked.add(name)
            found = getattr(super(kind, self), name)
            return found(*given) if callable(found) else found

        return property(method) if name.startswith("num_") else method

    kind = type("Mine", (base,), {"asked": set(), **{name: noted(name) for name in names}})
    return kind


def assert_equal(one, other):
    pd.testing.assert_frame_equal(one.requests, other.requests, check_exact=True)
    pd.testing.assert_frame_equal(one.iterations, other.iterations, check_exact=True)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("name", [name for name in POLICIES if name != "trtllm"])  # a function's
def test_a_subclass_of_a_policy_is_asked(name, lookahead, monkeypatch):
    config = policy_config(name)
    own = simulate(TRACE, config.build(KV, TRACE), LINEAR, lookahead=lookahead)
    asked = ("add", "schedule", "stretch", "complete", "kv_use", "num_waiting", "num_running")
    kind = overriding(BUILDERS[type(config)], asked)
    monkeypatch.setitem(BUILDERS, type(config), kind)
    assert_equal(simulate(TRACE, config.build(KV, TRACE), LINEAR, lookahead=lookahead), own)
    assert kind.asked == set(asked)


def test_private_steps_of_a_base_can_be_replaced():
    class Newest(VllmPolicy):
        def _victim(self):
            return next(iter(self.running))

    def run(kind):
        policy = kind(PagedKV(1_000, 16), 64, 2_048, 14_000)
        return simulate(TRACE.at_rate(100.0), policy, LINEAR)

    usual, newest = run(VllmPolicy).requests, run(Newest).requests
    assert usual["num_preemptions"].sum() and newest["num_preemptions"].sum()
    assert not usual["finish_s"].equals(newest["finish_s"])


class Direct(Policy):
    """One request at a time, by nothing but what `Policy` requires."""

    def __init__(self):
        self.num_slots = 1
        self.max_model_len = 100
        self.line = []
        self.busy = None

    def add(self, request):
        self.line.append(request)

    def schedule(self, now_s):
        batch = Batch()
        if self.busy is None and self.line:
            self.busy = self.line.pop(0)
            self.busy.status = "running"
            batch.admitted.append(self.busy)
            batch.add_chunk(self.busy, self.busy.input_tokens, 0)
            return batch
        if self.busy is None:
            return None
        batch.num_decode_tokens = 1
        return batch

    def stretch(self, batch):
        return 1

    def complete(self, batch, repeat):
        request = self.busy
        request.generated_tokens += 1
        if request.generated_tokens < request.output_tokens:
            return []
        request.status, self.busy = "finished", None
        return [request]

    def abandon(self, request):
        self.line.remove(request)

    def items(self, batch):
        return iter([(self.busy, batch.num_tokens)])

    @property
    def num_waiting(self):
        return len(self.line)

    @property
    def num_running(self):
        return int(self.busy is not None)

    def kv_use(self):
        return KVUse(0, 0, 0, 0, 0)


def few():
    return Trace(arrival_s=[0.0, 0.0, 4.0], input_tokens=[8, 8, 8], output_tokens=[3, 2, 1])


def test_a_policy_of_ones_own():
    found = simulate(few(), Direct(), make_step_time("linear", base_s=1.0))
    assert found.requests["finish_s"].tolist() == [3.0, 5.0, 6.0]
    assert found.iterations["num_waiting"].tolist() == [1, 1, 1, 0, 1, 0]
    assert not isinstance(Direct(), PagedPolicy) and isinstance(Direct(), Policy)


def test_kinds_of_policies_are_told_apart_whatever_was_asked_before():
    orca = policy_config("orca").build(KV)
    assert isinstance(orca, Policy) and not isinstance(orca, PagedPolicy | VllmPolicy)


@pytest.mark.skipif(not is_compiled(), reason="plain Python heeds it")
def test_a_policy_that_a_compiled_one_would_not_heed_is_refused():
    with pytest.raises(
        TypeError, match=r"^Silent sets streams for the class, .*; set it in __init"
    ):

        class Silent(Direct):
            streams = False


def test_a_policy_without_its_methods_is_refused():
    class Half(Direct):
        schedule, num_waiting = Policy.schedule, Policy.num_waiting

    with pytest.raises(ValueError, match=r"^this Half has no num_waiting and no schedule, which a"):
        simulate(few(), Half(), LINEAR)


class Wave(StepTime):
    def durations_s(self, batch, repeat):
        return np.full(repeat, 2.0)

    @property
    def notes(self):
        return ("mine",)


class Line(LineStepTime):
    def line(self, batch):
        return 2.0, 0.0


class Ahead(StepTime):
    def durations_s(self, batch, repeat):
        return np.full(repeat, 2.0)

    def ahead(self, batch, lead_s):
        return OneAhead()


class OneAhead(BatchAhead):
    @property
    def single(self):
        return False

    def durations_s(self, batch, repeat):
        return np.full(repeat, 2.0)

    def last(self, repeat, following):
        return 2.0, None


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("kind", [Wave, Line, Ahead])
def test_step_times_of_ones_own(kind, lookahead):
    usual, own = (
        simulate(few(), Direct(), step_time, lookahead=lookahead).requests
        for step_time in (make_step_time("linear", base_s=2.0), kind())
    )
    assert own["finish_s"].tolist() == usual["finish_s"].tolist()


@pytest.mark.parametrize("base", [PagedKV, PrefixCachedKV])
def test_kv_memory_of_ones_own(base):
    calls = []

    class Mine(base):
        def grow(self, request, num_tokens, cached_tokens=0):
            calls.append(num_tokens)
            super().grow(request, num_tokens, cached_tokens)

        @property
        def num_tokens(self):
            return 160

    policy = VllmPolicy(Mine(1_000, 16), 4, 512, 14_000)
    trace = Trace(arrival_s=[0.0, 0.0], input_tokens=[8, 200], output_tokens=[3, 2])
    status = simulate(trace, policy, LINEAR).requests["status"].tolist()
    assert calls and status[0] == "finished" and status[1].startswith("refused: its KV")


def test_unbroken_kv_memory_of_ones_own():
    class Mine(ContiguousKV):
        def fits(self, num_tokens):
            return False

        @property
        def fragmented_tokens(self):
            return 7

    kv = Mine(100)
    assert kv.reserve("a", 30) == 0 and kv.fragmented_tokens == 7 and not kv.fits(1)


def test_a_server_of_ones_own():
    ended = []

    class Mine(Server):
        def _end(self, batch, stretch, repeat, firsts, finished, now):
            ended.append(now)
            super()._end(batch, stretch, repeat, firsts, finished, now)

    env = simpy.Environment()
    server = Mine(env, Direct(), make_step_time("linear", base_s=1.0))
    request = Request(0, 0.0, 8, 3)
    server.submit(request)
    env.run()
    assert ended == [1.0, 2.0, 3.0] and request.finish_s == 3.0
