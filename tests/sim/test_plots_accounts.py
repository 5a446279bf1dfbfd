"""What a slot and the KV cache did, as every figure counts it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.plots.breakdown import bubble_share, kv_account, slot_account
from busdoor.plots.phases import stay_phases
from busdoor.plots.runs import IterationClock
from busdoor.policies.static import StaticPolicy
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

MIXED = [(30, 12), (60, 3), (10, 40), (25, 7), (80, 1), (5, 22), (44, 9)]
LENGTHS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=12)


def parts(**slot_iterations):
    return {"useful": 0, "stalled": 0, "finished": 0, **slot_iterations}


def trace():
    rng = np.random.default_rng(2)
    outputs = np.clip(rng.lognormal(3.5, 0.9, 60), 1, 300).astype(int)
    arrivals = np.cumsum(rng.exponential(0.05, 60))
    inputs = rng.integers(20, 300, 60)
    return Trace(
        arrival_s=arrivals,
        input_tokens=inputs,
        output_tokens=outputs,
        max_output_tokens=outputs * 2,
    )


def static(**options):
    return StaticPolicy(ContiguousKV(16_000, 16), 8, 2048, **options)


def vllm():
    return VllmPolicy(
        PagedKV(120, 16), max_num_seqs=8, max_num_batched_tokens=256, max_model_len=2048
    )


class TestPhases:
    def test_a_row_of_a_batch_released_whole_is_done_when_its_tokens_are(self, intro):
        bus, _ = intro
        phases = stay_phases(bus).set_index("request_id")
        assert bus.requests["finish_s"].tolist() == pytest.approx(
            [2.0] * 4
        )  # nobody is answered before the end
        assert phases["done_s"].tolist() == pytest.approx([0.2, 0.4, 1.0, 2.0])

    def test_a_streamed_batch_gives_the_same_phases(self, toy_run):
        whole, streamed = (
            toy_run(MIXED, 3, bus=True, per_token_s=1e-3, release=r) for r in ("batch", "request")
        )
        columns = ["enter_s", "prefill_end_s", "done_s", "leave_s"]
        pd.testing.assert_frame_equal(stay_phases(whole)[columns], stay_phases(streamed)[columns])

    def test_nobody_rides_along_behind_a_door(self, toy_run):
        phases = stay_phases(toy_run(MIXED, 3, bus=False, per_token_s=1e-3))
        assert (phases["done_s"] == phases["leave_s"]).all()
        assert (phases["prefill_end_s"] == phases["first_token_s"]).all()

    def test_a_stay_after_a_preemption_prefills_until_that_is_complete(self, toy_run):
        run = toy_run([(10, 20)], 1, bus=False)  # thrown out after 0.1 s, back at 0.2 s
        run.stays = pd.DataFrame(
            {"request_id": 0, "slot": 0, "enter_s": [0.0, 0.2], "leave_s": [0.1, 0.5], "replica": 0}
        )
        run.requests["finish_s"] = 0.5
        rows = [run.iterations.iloc[0].to_dict() | {"start_s": at} for at in (0.0, 0.2)]
        rows[1] |= {"num_first_tokens": 0, "num_resumed": 1}
        run.iterations = pd.DataFrame(rows)
        phases = stay_phases(run)
        assert phases["prefill_end_s"].tolist() == pytest.approx([0.02, 0.22])
        assert phases["done_s"].tolist() == pytest.approx([0.1, 0.5])
        assert phases["ends_request"].tolist() == [False, True]

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_phases_are_in_order_and_every_token_has_its_iteration(
        self, toy_run, lengths, slots, bus
    ):
        run = toy_run(lengths, slots, bus, per_token_s=1e-3)
        phases, clock = stay_phases(run), IterationClock(run.iterations)
        times = phases[["enter_s", "prefill_end_s", "done_s", "leave_s"]].to_numpy()
        assert (np.diff(times, axis=1) >= -1e-12).all()
        wanted = clock.count(phases["done_s"]) - clock.count(phases["enter_s"])
        assert wanted == pytest.approx(phases["output_tokens"].to_numpy())


class TestAccounts:
    def test_the_introductory_bus(self, intro):
        bus, _ = intro
        assert slot_account(bus) == pytest.approx(parts(useful=180, finished=220))
        assert bubble_share(bus) == pytest.approx(0.55)

    def test_the_introductory_door(self, intro):
        _, door = intro
        assert slot_account(door) == pytest.approx(parts(useful=210))
        assert bubble_share(door) == 0

    def test_a_padded_prompt_is_useful_as_the_summary_has_it(self, toy_run):
        run = toy_run([(10, 1), (40, 1)], 2, bus=True)
        assert slot_account(run) == pytest.approx(parts(useful=2))

    def test_a_request_left_out_of_an_iteration_is_stalled(self, toy_run):
        run = toy_run([(10, 5), (10, 5)], 2, bus=False)
        run.iterations.loc[1:, ["num_requests", "num_decode_tokens"]] = 1
        assert slot_account(run)["stalled"] == pytest.approx(4)

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_parts_add_up_to_the_held_slot_iterations(self, toy_run, lengths, slots, bus):
        run = toy_run(lengths, slots, bus)
        account, clock = slot_account(run), IterationClock(run.iterations)
        held = clock.count(run.stays["leave_s"]) - clock.count(run.stays["enter_s"])
        assert sum(account.values()) == pytest.approx(held.sum())
        assert account["useful"] == pytest.approx(sum(n for _, n in lengths))
        assert min(account.values()) >= -1e-9

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_kv_parts_add_up_to_the_cache(self, toy_run, lengths, slots, bus):
        run = toy_run(lengths, slots, bus)
        cache = kv_account(run)
        assert sum(cache.values()) == pytest.approx(run.meta["num_blocks"] * run.meta["block_size"])
        assert cache["unused"] > 0 if bus else cache["unused"] == 0

    @pytest.mark.parametrize("make", [static, vllm])
    def test_simulated_runs_give_the_summarys_shares(self, make):
        run = simulate(
            trace(), make(), LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-6)
        )
        cache, capacity = kv_account(run), run.meta["num_blocks"] * run.meta["block_size"]
        assert bubble_share(run) == pytest.approx(run.summary["bubble_share"])
        assert cache["used"] / capacity == pytest.approx(run.summary["kv_used_share"], rel=0.02)
        reserved = cache["used"] + cache["reserved"] + cache["unused"]
        assert reserved / capacity == pytest.approx(run.summary["kv_reserved_share"])

    def test_a_simulated_batch_has_the_same_phases_streamed_or_whole(self):
        runs = [
            simulate(trace(), static(release=r), LinearStepTime(base_s=5e-3))
            for r in ("batch", "request")
        ]
        whole, streamed = (
            stay_phases(run)[["prefill_end_s", "done_s", "leave_s"]].to_numpy() for run in runs
        )
        assert whole == pytest.approx(streamed)
