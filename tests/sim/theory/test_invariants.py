"""Checks 6 and 7 and the survey's invariants (§5.5): what holds on every path and draw."""

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.policies.dynamic import DynamicPolicy
from busdoor.policies.orca import OrcaPolicy
from busdoor.policies.prefill_first import PrefillFirstPolicy
from busdoor.policies.static import StaticPolicy
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.clients import Clients
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace, Workload
from busdoor_workloads.formats import read_trace, write_trace

STEP_TIME = LinearStepTime(base_s=0.01, per_token_s=1e-4, per_context_s=1e-7, per_request_s=1e-3)
BLOCK, MODEL_LEN = 4, 96


def make(name, slots=4, num_blocks=40):
    """A policy of so many slots, in memory that is scarce unless said otherwise."""
    tokens = num_blocks * BLOCK
    paged = dict.fromkeys(("vllm", "prefill_first"), lambda: PagedKV(num_blocks, BLOCK))
    kv = paged.get(name, lambda: ContiguousKV(tokens))()
    return {
        "vllm": lambda: VllmPolicy(kv, slots, 32, MODEL_LEN),
        "prefill_first": lambda: PrefillFirstPolicy(kv, slots, 32, MODEL_LEN),
        "orca": lambda: OrcaPolicy(kv, slots, MODEL_LEN, reservation="oracle"),
        "static": lambda: StaticPolicy(
            kv, slots, MODEL_LEN, release="request", max_output_tokens=MODEL_LEN // 2
        ),
        "dynamic": lambda: DynamicPolicy(
            kv, slots, MODEL_LEN, max_wait_s=0.05, release="request", max_output_tokens=48
        ),
    }[name]()


POLICIES = ("vllm", "prefill_first", "orca", "static", "dynamic")
lengths = st.integers(1, MODEL_LEN // 2)
requests = st.lists(st.tuples(st.floats(0, 0.5), lengths, lengths), min_size=1, max_size=25)


def as_trace(rows, scale=1.0):
    gaps, inputs, outputs = np.array(rows).T
    return Trace(arrival_s=np.cumsum(gaps) * scale, input_tokens=inputs, output_tokens=outputs)


class Watch:
    """A recorder that integrates how many wait and run, and looks at every batch."""

    def __init__(self, env, policy):
        self.env, self.policy = env, policy
        self.area = np.zeros(2)
        self.state, self.since_s = np.zeros(2), 0.0
        self.batches = []

    def look(self):
        self.area += self.state * (self.env.now - self.since_s)
        self.state, self.since_s = (
            np.array([self.policy.num_waiting, self.policy.num_running]),
            self.env.now,
        )

    def begin(self, batch, now_s):
        self.look()
        self.batches.append(
            (now_s, batch.num_tokens, self.policy.num_running, self.policy.kv_use())
        )

    def end(self, batch, stretch, repeat, firsts, now_s):
        self.look()

    def left(self, request, now_s):
        self.look()


class WatchedServer(Server):
    """A server that notes what each arrival finds."""

    def submit(self, request):
        self.recorder.look()
        self.found = [*getattr(self, "found", []), self.recorder.state.sum()]
        super().submit(request)
        self.recorder.look()


def watch(trace, policy, step_time=STEP_TIME):
    env = simpy.Environment()
    recorder, clients, left = Watch(env, policy), Clients(env, trace), []
    server = WatchedServer(
        env,
        policy,
        step_time,
        recorder=recorder,
        on_leave=lambda r: (left.append(r), clients.left(r)),
    )
    clients.start(server)
    env.run()
    return recorder, server, left


@pytest.mark.parametrize("name", POLICIES)
@given(rows=requests)
@settings(max_examples=30, deadline=None)
def test_6_little_holds_on_the_path(name, rows):
    """Areas under queue and batch sum the waits and stays; preempted time waits again."""
    recorder, _, left = watch(as_trace(rows), make(name, num_blocks=1000))
    waits = sum(r.first_scheduled_s - r.arrival_s for r in left)
    stays = sum(r.released_s - r.first_scheduled_s for r in left)
    assert recorder.area == pytest.approx([waits, stays], rel=1e-9, abs=1e-9)


def found_and_mean(rng, burstiness):
    """What gamma arrivals find in the system on average, and its mean over time."""
    n, mean_gap_s = 6000, 0.2
    gaps = rng.gamma(burstiness, mean_gap_s / burstiness, n)
    trace = Trace(
        arrival_s=np.cumsum(gaps), input_tokens=np.ones(n), output_tokens=rng.geometric(1 / 16, n)
    )
    policy = make("vllm", slots=8, num_blocks=10_000)
    recorder, server, _ = watch(trace, policy, LinearStepTime(base_s=0.03, per_request_s=2e-3))
    return np.mean(server.found), recorder.area.sum() / trace.arrival_s[-1]


def test_7_poisson_arrivals_see_time_averages(rng):
    found, mean = found_and_mean(rng, burstiness=1.0)
    assert found == pytest.approx(mean, rel=0.02)


def test_7_bursty_arrivals_see_more(rng):
    found, mean = found_and_mean(rng, burstiness=0.2)
    assert found > 1.1 * mean


@pytest.mark.parametrize("name", POLICIES)
@given(rows=requests)
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost_caps_hold_and_time_goes_forward(name, rows):
    """Conservation, caps and causality, under preemptions too."""
    trace, policy = as_trace(rows), make(name)
    result = simulate(trace, policy, STEP_TIME, lookahead=0)
    table, steps = result.requests, result.iterations
    assert (table["status"] == "finished").all()
    made = (steps["num_decode_tokens"] * steps["repeat"]).sum() + (
        steps["num_first_tokens"] + steps["num_resumed"]
    ).sum()
    assert made == trace.output_tokens.sum()
    assert (steps["num_running"] <= 4).all()
    assert (steps["kv_reserved_tokens"] <= 40 * BLOCK).all()
    if name in ("vllm", "prefill_first"):
        assert (steps["num_prefill_tokens"] + steps["num_decode_tokens"] <= 32).all()
        assert (steps["kv_blocks_used_last"] <= 40).all()
        assert policy.kv.num_free_blocks == 40
    else:
        assert policy.kv.num_free_tokens == policy.kv.num_tokens
    times = table[
        ["arrival_s", "first_scheduled_s", "first_token_s", "finish_s", "released_s"]
    ].to_numpy()
    assert (np.diff(times, axis=1) >= 0).all()
    assert (np.diff(steps["start_s"]) > 0).all()
    ends = (steps["start_s"] + steps["duration_s"]).to_numpy()
    assert (steps["start_s"].to_numpy()[1:] >= ends[:-1] * (1 - 1e-12)).all()


@given(rows=requests)
@settings(max_examples=40, deadline=None)
def test_one_slot_is_first_come_first_served_whatever_the_policy(rows):
    finish = {}
    for name in POLICIES:
        policy = make(name, slots=1, num_blocks=1000)
        if name in ("vllm", "prefill_first"):
            policy = type(policy)(policy.kv, 1, MODEL_LEN, MODEL_LEN)  # no prompt is cut
        finish[name] = (
            simulate(as_trace(rows), policy, STEP_TIME, lookahead=0).requests["finish_s"].to_numpy()
        )
    for name in POLICIES:
        assert finish[name] == pytest.approx(finish["vllm"], rel=1e-9)


@pytest.mark.parametrize("name", POLICIES)
# Powers of two scale without rounding: else an arrival at the very end of an iteration falls on its
# other side.
@given(rows=requests, scale=st.integers(-6, 6).map(lambda power: 2.0**power))
@settings(max_examples=20, deadline=None)
def test_stretching_all_times_stretches_all_latencies(name, rows, scale):
    slow = LinearStepTime(**{k: v * scale for k, v in STEP_TIME.describe().items() if k != "name"})
    policy, stretched = make(name), make(name)
    if name == "dynamic":
        stretched.max_wait_s *= scale
    once = simulate(as_trace(rows), policy, STEP_TIME, lookahead=0).requests
    again = simulate(as_trace(rows, scale), stretched, slow, lookahead=0).requests
    for column in ("first_token_s", "finish_s"):
        assert again[column].to_numpy() == pytest.approx(scale * once[column].to_numpy(), rel=1e-9)


@given(rows=requests, slots=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_another_slot_delays_nobody_when_steps_last_as_long_anyway(rows, slots):
    step_time = LinearStepTime(base_s=0.02)
    fewer, more = (
        simulate(
            as_trace(rows), OrcaPolicy(ContiguousKV(10_000), n, MODEL_LEN), step_time, lookahead=0
        ).requests["finish_s"]
        for n in (slots, slots + 1)
    )
    assert (
        more <= fewer * (1 + 1e-9) + 0.02
    ).all()  # an arrival may meet an iteration that it did not meet before


@pytest.mark.parametrize("resource", ["slots", "num_blocks"])
def test_more_slots_or_memory_never_lower_saturated_throughput(rng, resource):
    n = 400
    trace = Trace(
        arrival_s=np.zeros(n),
        input_tokens=rng.integers(1, 32, n),
        output_tokens=rng.geometric(1 / 16, n).clip(max=48),
    )
    plenty = {"slots": 64, "num_blocks": 2000}
    amounts = (2, 4, 8, 16, 32) if resource == "slots" else (40, 80, 160, 320)
    rates = []
    for amount in amounts:
        policy = make("orca", **(plenty | {resource: amount}))  # no preemptions
        rates.append(
            simulate(trace, policy, STEP_TIME, lookahead=0).summary["saturated_output_throughput"]
        )
    assert (np.diff(rates) > 0).all(), rates


WORKLOAD = {
    "input_tokens": {"type": "uniform", "low": 1, "high": 40},
    "output_tokens": {"type": "geometric", "mean": 12, "max": 40},
    "arrival": 8.0,
}


def test_a_seed_is_a_trace_and_a_run():
    one, two = (Workload(**WORKLOAD).generate(seed=5, num_requests=200) for _ in range(2))
    assert one.to_frame().to_csv() == two.to_frame().to_csv()
    first, second = (simulate(trace, make("vllm"), STEP_TIME, lookahead=0) for trace in (one, two))
    assert first.requests.to_csv() == second.requests.to_csv()
    assert first.iterations.to_csv() == second.iterations.to_csv()


def test_another_consumer_of_randomness_shifts_nothing():
    plain = Workload(**WORKLOAD).generate(seed=5, num_requests=200)
    patient = Workload(**WORKLOAD, timeout_s=3.0, max_output_factor=2.0).generate(
        seed=5, num_requests=200
    )
    assert (plain.arrival_s == patient.arrival_s).all()
    assert (plain.output_tokens == patient.output_tokens).all()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_trace_that_was_written_and_read_runs_alike(tmp_path, ending):
    trace = Workload(**WORKLOAD).generate(seed=6, num_requests=200)
    path = tmp_path / f"trace.{ending}"
    write_trace(trace, path)
    written, read = (
        simulate(t, make("vllm"), STEP_TIME, lookahead=0) for t in (trace, read_trace(path))
    )
    pd.testing.assert_series_equal(written.summary, read.summary, check_exact=True)
    assert (written.requests["finish_s"] == read.requests["finish_s"]).all()
