"""What holds for every policy, trace, memory, step time (references/workloads.md §5.5)."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.clients import Clients
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime, LinearStepTime, StepTime, make_step_time
from busdoor_workloads import Trace

MAX_MODEL_LEN = 100
TIMES = ["first_scheduled_s", "first_token_s", "finish_s", "released_s"]


class Wave(StepTime):
    """Somebody's own model: no line, so that stretches are summed by vector."""

    def durations_s(self, batch, repeat):
        context = batch.decode_context_tokens + batch.num_decode_rows * np.arange(repeat)
        return 0.01 + 1e-4 * batch.num_tokens + 1e-3 * np.sin(context / 7) ** 2


STEP_TIMES = [
    LinearStepTime(base_s=0.01),
    LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-6, per_request_s=1e-4),
    make_step_time("roofline", gpu="H100", model="llama-3.1-8b"),
    Wave(),
    # The host is slower than the device where a prefill follows, and else while contexts are short.
    CalibratedStepTime(
        base_s=5e-3,
        eager_s=1e-3,
        per_token_s=(1e-5, 1e-4),
        token_breaks=(4,),
        per_context_s=2e-5,
        per_chunk_s=3e-4,
        per_mixed_request_s=4e-4,
        per_mixed_context_s=1e-5,
        host_s=6e-3,
        host_eager_s=3e-3,
        host_per_request_s=2e-4,
        overlap=True,
        graph_sizes=(1, 2, 4),
    ),
]

slots = st.integers(1, 5)
budgets = st.sampled_from([16, 40, 200])
queues = st.sampled_from(["fcfs", "priority"])
whole_batches = {
    "batch_size": st.one_of(st.none(), slots),
    "max_output_tokens": st.sampled_from([None, 20, 40]),
    "max_wait_s": st.sampled_from([0.0, 0.03, 1.0]),
    "finished_rows": st.sampled_from(["compute", "skip"]),
    "decode_reads": st.sampled_from(["own", "padded"]),
    "release": st.sampled_from(["batch", "request"]),
}
POLICIES = {
    "static": whole_batches,
    "dynamic": whole_batches
    | {"sort_window": st.integers(0, 8), "sort_by": st.sampled_from(["input", "output"])},
    "multi_bin": whole_batches
    | {
        "num_bins": st.integers(1, 4),
        "by": st.sampled_from(["input", "output"]),
        "spacing": st.sampled_from(["probability", "width"]),
    },
    "orca": {
        "max_num_seqs": slots,
        "max_num_batched_tokens": st.one_of(st.none(), budgets),
        "reservation": st.sampled_from(["max", "pow2", "oracle"]),
        "queue": queues,
    },
    "vllm": {
        "max_num_seqs": slots,
        "max_num_batched_tokens": budgets,
        "queue": queues,
        "watermark": st.sampled_from([0.0, 0.1]),
        "reserve_full_prompt": st.booleans(),
        "prefix_caching": st.booleans(),
    },
    "prefill_first": {
        "max_num_seqs": slots,
        "max_num_batched_tokens": budgets,
        "queue": queues,
        "watermark": st.sampled_from([0.0, 0.1]),
        "prefix_caching": st.booleans(),
    },
    "tgi": {
        "max_num_seqs": slots,
        "waiting_served_ratio": st.sampled_from([0.0, 0.3, 0.7, 1.2]),
        "max_waiting_tokens": st.sampled_from([0, 3, 7, 20]),
        "max_batch_prefill_tokens": st.one_of(st.none(), budgets),
        "max_batch_total_tokens": st.sampled_from([None, 60, 130, 500]),
        "max_output_tokens": st.sampled_from([None, 20, 40]),
    },
    "transformers": {
        "max_num_seqs": slots,
        "max_num_batched_tokens": budgets,
        "safety_margin": st.sampled_from([0.0, 0.15, 0.5, 1.0]),
    },
    "trtllm": {
        "capacity": st.sampled_from(["guaranteed_no_evict", "max_utilization"]),
        "max_num_seqs": slots,
        "max_num_tokens": budgets,
        "chunked_prefill": st.booleans(),
        "max_output_tokens": st.sampled_from([None, 20, 40]),
        "queue": queues,
    },
}
WHOLE = ("static", "dynamic", "multi_bin")
# From just one longest request to ample.
memories = st.builds(
    lambda block_size, tokens: KVConfig(
        block_size=block_size, num_blocks=-(-tokens // block_size), max_model_len=MAX_MODEL_LEN
    ),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([100, 150, 300, 2000]),
)


@st.composite
def policies(draw, names=tuple(POLICIES)):
    name = draw(st.sampled_from(names))
    return policy_config(name, **draw(st.fixed_dictionaries(POLICIES[name])))


@st.composite
def traces(draw, timeouts=True):
    """Up to 12 requests, in bursts or apart; caps, prefixes, impatient clients, user loops."""
    number = draw(st.integers(1, 12))

    def column(values):
        return draw(st.lists(values, min_size=number, max_size=number))

    outputs = column(st.one_of(st.integers(1, 3), st.integers(1, 35)))
    columns = {"priority": column(st.integers(0, 2))}
    if draw(st.booleans()):
        columns["max_output_tokens"] = [
            n + more for n, more in zip(outputs, column(st.integers(0, 30)), strict=True)
        ]
    if draw(st.booleans()):
        columns |= {"hash_ids": [(1, 2, i) for i in range(number)], "block_size": 16}
    if timeouts and draw(st.booleans()):
        # Odd numbers: nobody gives up just when an iteration ends, where the last bit would decide.
        columns["timeout_s"] = column(
            st.one_of(st.just(np.nan), st.integers(1, 40).map(lambda k: k * 0.0137 + 0.0003137))
        )
    gaps = column(st.sampled_from([0.0, 0.0, 0.01, 0.05, 0.2]))
    if draw(st.integers(0, 3)) == 0:
        columns |= {
            "concurrency": draw(st.integers(1, 4)),
            "think_time_s": [0.7 * gap for gap in gaps],
        }
        gaps = [0.0] * number
    return Trace(
        arrival_s=np.cumsum(gaps),
        input_tokens=column(st.integers(1, 70)),
        output_tokens=outputs,
        **columns,
    )


@dataclass
class Auditor:
    """A recorder that looks on while a policy runs, and writes nothing."""

    policy: object
    trace: Trace
    budget: float
    now_s: float = 0.0
    tokens: int = 0
    log: list = field(default_factory=list)
    gone: list = field(default_factory=list)

    def begin(self, batch, now_s):
        assert now_s >= self.now_s
        self.now_s = now_s
        policy = self.policy
        assert batch.num_tokens > 0
        assert len(batch.chunks) + batch.num_decode_rows <= policy.num_running <= policy.num_slots
        assert batch.num_tokens <= self.budget
        assert len({chunk.request for chunk in batch.chunks}) == len(batch.chunks)
        items = dict(policy.items(batch))
        padding = batch.num_padded_tokens - batch.num_idle_rows
        assert sum(items.values()) == batch.num_tokens - padding
        assert all(request.arrival_s * (1 - 1e-11) <= now_s for request in items)
        use, kv = policy.kv_use(), policy.kv
        assert 0 < use.reserved <= kv.num_blocks * kv.block_size
        assert 0 < use.blocks <= kv.num_blocks
        assert min(use) >= 0
        assert use.used + use.unused <= use.reserved

    def end(self, batch, stretch, repeat, firsts, now_s):
        assert repeat >= 1
        self.tokens += repeat * batch.num_decode_tokens + len(firsts)
        work = (
            batch.num_prefill_tokens,
            batch.num_decode_tokens,
            batch.num_idle_rows,
            batch.num_padded_tokens,
        )
        context, rows = batch.decode_context_tokens, batch.num_decode_rows
        self.log += [(*work, context + i * rows) for i in range(repeat)]

    def left(self, request, now_s):
        self.gone.append(request)

    @property
    def fates(self):
        return sorted(
            (r.request_id, r.status, r.num_preemptions, r.cached_tokens) for r in self.gone
        )

    @property
    def times(self):
        ordered = sorted(self.gone, key=lambda request: request.request_id)
        return np.array([[getattr(request, column) for column in TIMES] for request in ordered])


def audit(trace, config, kv, step_time, **options):
    env = simpy.Environment()
    policy = config.build(kv, trace)
    budget = getattr(policy, "max_num_batched_tokens", None) or np.inf
    auditor = Auditor(policy, trace, budget)
    clients = Clients(env, trace, kv.block_size)
    server = Server(env, policy, step_time, recorder=auditor, on_leave=clients.left, **options)
    clients.start(server)
    env.run()
    return auditor


options = st.fixed_dictionaries(
    {"lookahead": st.sampled_from([0, 1]), "step_by_step": st.booleans()}
)


@settings(max_examples=150, deadline=None)
@given(traces(), policies(), memories, st.sampled_from(STEP_TIMES), options)
def test_tokens_and_memory_are_conserved_and_caps_kept(trace, config, kv, step_time, options):
    auditor = audit(trace, config, kv, step_time, **options)
    policy, gone = auditor.policy, auditor.gone
    assert sorted(request.request_id for request in gone) == list(range(len(trace)))
    assert (policy.num_waiting, policy.num_running) == (0, 0)
    contiguous = config.name in (*WHOLE, "orca")
    free = policy.kv.num_free_tokens if contiguous else policy.kv.num_free_blocks
    assert free == (policy.kv.num_tokens if contiguous else policy.kv.num_blocks)
    assert auditor.tokens == sum(request.generated_tokens for request in gone)
    for request in gone:
        assert request.status in ("finished", "abandoned") or request.status.startswith("refused: ")
        if request.status == "finished":
            assert request.generated_tokens == request.output_tokens
            assert request.computed_tokens == request.kv_tokens
            assert request.arrival_s <= request.first_scheduled_s <= request.first_token_s
            assert request.first_token_s <= request.finish_s <= request.released_s


@settings(max_examples=250, deadline=None)
@given(traces(), policies(), memories, st.sampled_from(STEP_TIMES), st.sampled_from([0, 1]))
def test_a_stretch_at_once_is_the_same_as_step_by_step(trace, config, kv, step_time, lookahead):
    jumps, steps = (
        audit(trace, config, kv, step_time, lookahead=lookahead, step_by_step=step_by_step)
        for step_by_step in (False, True)
    )
    assert jumps.log == steps.log
    assert jumps.fates == steps.fates
    np.testing.assert_allclose(jumps.times, steps.times, rtol=1e-9)


SECONDS = LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-6, per_request_s=1e-4)
AMPLE = KVConfig(num_blocks=10_000, max_model_len=MAX_MODEL_LEN)


def run(trace, name, step_time=SECONDS, kv=AMPLE, **fields):
    return simulate(trace, policy_config(name, **fields).build(kv, trace), step_time, lookahead=0)


CONTINUOUS = tuple(name for name in POLICIES if name not in WHOLE)


@settings(max_examples=40, deadline=None)
@given(traces(timeouts=False))
def test_one_slot_is_first_come_first_served_whatever_the_policy(trace):
    static = run(trace, "static", batch_size=1).requests
    for name in CONTINUOUS:
        other = run(trace, name, max_num_seqs=1).requests
        np.testing.assert_allclose(other["finish_s"], static["finish_s"], rtol=1e-9)
    served = static[static["status"] == "finished"]
    if trace.concurrency is None:
        assert served["finish_s"].is_monotonic_increasing


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
def test_with_equal_lengths_the_gain_is_exactly_one(slots, batches, inputs, outputs):
    number = slots * batches
    burst = Trace(
        arrival_s=np.zeros(number),
        input_tokens=np.full(number, inputs),
        output_tokens=np.full(number, outputs),
    )
    static = run(burst, "static", batch_size=slots).requests
    for name in CONTINUOUS:
        other = run(burst, name, max_num_seqs=slots).requests
        np.testing.assert_allclose(other["finish_s"], static["finish_s"], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(traces(timeouts=False), policies(), memories, st.sampled_from([0.25, 3.0, 1000.0]))
def test_stretching_all_times_stretches_all_latencies(trace, config, kv, scale):
    slow = LinearStepTime(
        base_s=5e-3 * scale,
        per_token_s=5e-5 * scale,
        per_context_s=1e-6 * scale,
        per_request_s=1e-4 * scale,
    )
    waits = {"max_wait_s": config.max_wait_s * scale} if hasattr(config, "max_wait_s") else {}
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__ if name != "name"}
    slower = policy_config(config.name, **fields | waits)
    before = simulate(trace, config.build(kv, trace), SECONDS).requests
    stretched = trace.scale_time(scale)
    if trace.think_time_s is not None:
        stretched = replace(stretched, think_time_s=trace.think_time_s * scale)
    after = simulate(stretched, slower.build(kv, trace), slow).requests
    np.testing.assert_allclose(after[TIMES], before[TIMES] * scale, rtol=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_more_slots_never_slow_a_saturated_server(name):
    rng = np.random.default_rng(7)
    number = 300
    burst = Trace(
        arrival_s=np.zeros(number),
        input_tokens=rng.integers(1, 40, number),
        output_tokens=rng.geometric(1 / 12, number).clip(1, 50),
    )
    makespans = [
        run(burst, name, max_num_seqs=slots).requests["finish_s"].max()
        for slots in (1, 2, 4, 8, 16, 32)
    ]
    assert all(more < fewer for fewer, more in pairwise(makespans))
