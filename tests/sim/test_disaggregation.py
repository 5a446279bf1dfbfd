"""Prefill and decode on two servers, by hand: iterations of 1 s, 10 bytes a KV token."""

from math import inf

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.cluster import Replica, simulate_disaggregated
from busdoor.kv.config import KVConfig
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.metrics.metrics import token_gaps
from busdoor.policies import VllmPolicy, policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime, make_step_time
from busdoor_workloads import Trace

SECOND = LinearStepTime(base_s=1.0)
GROWING = LinearStepTime(base_s=0.01, per_token_s=1e-4, per_context_s=1e-6)


def server(
    slots=8, num_blocks=100, step_time=SECOND, kv=PagedKV, block_size=16, budget=512, **settings
):
    return Replica(
        VllmPolicy(kv(num_blocks, block_size), slots, budget, 1600, **settings), step_time
    )


def trace(arrival_s, lengths, **columns):
    inputs, outputs = zip(*lengths, strict=True)
    return Trace(arrival_s=arrival_s, input_tokens=inputs, output_tokens=outputs, **columns)


def run(arriving, prefill=1, decode=1, rate=100.0, **options):
    """Run it through pools of equal or given servers; links carry `rate` bytes a second."""
    pools = [
        [server() for _ in range(pool)] if isinstance(pool, int) else pool
        for pool in (prefill, decode)
    ]
    return simulate_disaggregated(
        arriving, *pools, rate, **{"kv_bytes_per_token": 10.0, "lookahead": 0, **options}
    )


def times(result, *columns):
    return result.requests[list(columns)].round(9).to_numpy().tolist()


class TestTiming:
    def test_the_life_of_a_request(self):
        # Prefilled from 1 to 2; 50 tokens of 10 bytes take 5 s; decoded in iterations that begin at
        # 7, 8 and 9.
        result = run(trace([1], [(50, 4)]))
        columns = (
            "first_scheduled_s",
            "first_token_s",
            "transfer_start_s",
            "transfer_end_s",
            "finish_s",
        )
        assert times(result, *columns) == [[1, 2, 2, 7, 10]]
        assert result.requests.loc[0, ["prefill_replica", "replica", "status"]].tolist() == [
            0,
            1,
            "finished",
        ]
        assert result.stays[["replica", "enter_s", "leave_s"]].round(9).to_numpy().tolist() == [
            [0, 1, 2],
            [1, 7, 10],
        ]

    def test_what_the_servers_compute(self):
        rows = run(trace([0], [(50, 4)])).iterations
        names = [
            "replica",
            "num_prefill_tokens",
            "prefill_context_tokens",
            "num_decode_tokens",
            "context_tokens",
        ]
        # The first token, then one that reads the 50 that came, then the decodes.
        assert rows[["repeat", *names]].to_numpy().tolist() == [
            [1, 0, 50, 50, 0, 0],
            [1, 1, 1, 51, 0, 0],
            [2, 1, 0, 0, 1, 51],
        ]
        assert rows["kv_blocks_used_last"].tolist() == [4, 4, 4]

    def test_latency_comes_on_top(self):
        assert times(
            run(trace([0], [(50, 2)]), link_latency_s=0.5), "transfer_end_s", "finish_s"
        ) == [[6.5, 7.5]]

    def test_metrics_are_those_of_the_client(self):
        summary = run(trace([1], [(50, 4)])).summary
        assert summary["mean_ttft_ms"] == pytest.approx(1000)
        assert summary["mean_tpot_ms"] == pytest.approx((10 - 2) / 3 * 1000)
        # Gaps of 6 s (5 s of transfer in it), 1 s and 1 s.
        assert summary["mean_itl_ms"] == pytest.approx(8000 / 3)
        assert summary["median_itl_ms"] == pytest.approx(1000)
        assert summary["p99_itl_ms"] == pytest.approx(1000 + 0.98 * 5000)

    def test_a_single_token_is_never_sent(self):
        result = run(trace([0, 0], [(50, 1), (10, 2)]))
        assert times(result, "first_token_s", "finish_s") == [[1, 1], [1, 3]]
        assert result.requests["replica"].tolist() == [0, 1]
        assert result.requests["transfer_end_s"].isna().tolist() == [True, False]

    def test_an_infinitely_fast_link_takes_no_time(self):
        result = run(trace([0, 2.5], [(50, 4), (20, 3)]), rate=inf)
        # The second's prompt is computed from 2.5 to 3.5, while the first decodes its last from 3
        # to 4.
        assert times(result, "first_token_s", "finish_s") == [[1, 4], [3.5, 6]]

    def test_the_model_says_how_large_its_kv_is(self):
        roofline = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")
        result = simulate_disaggregated(
            trace([0], [(1000, 2)]),
            [server(step_time=roofline, budget=2048)],
            [server(step_time=roofline)],
            50e9,
        )
        # 2 (keys and values) x 32 layers x 8 heads x 128 values x 2 bytes.
        row = result.requests.iloc[0]
        assert row["transfer_end_s"] - row["transfer_start_s"] == pytest.approx(
            1000 * 131_072 / 50e9
        )
        assert 0 < result.summary["mfu"] < 1


class TestLinks:
    def test_transfers_of_one_sender_queue(self):
        # Both prompts are done at 1; their KV leaves one after the other, though to different
        # servers.
        result = run(trace([0, 0], [(20, 2), (30, 2)]), decode=2)
        assert times(result, "transfer_start_s", "transfer_end_s", "replica") == [
            [1, 3, 1],
            [3, 6, 2],
        ]

    def test_transfers_to_one_receiver_queue(self):
        result = run(trace([0, 0], [(20, 2), (30, 2)]), prefill=2)
        columns = ("transfer_start_s", "transfer_end_s", "prefill_replica")
        assert times(result, *columns) == [[1, 3, 0], [3, 6, 1]]

    def test_two_pairs_do_not_disturb_each_other(self):
        result = run(trace([0, 0], [(20, 2), (30, 2)]), prefill=2, decode=2)
        assert times(result, "transfer_start_s", "transfer_end_s") == [[1, 3], [1, 4]]

    def test_a_busy_receiver_holds_up_the_senders_others(self):
        # 0 -> A from 1 to 5. Sender 1 has one for A, which waits till 5, and behind it one for B,
        # which is idle.
        routers = {"prefill_router": "round_robin", "decode_router": "round_robin"}
        arriving = trace([0, 0.5, 0.5, 0.6], [(40, 2), (10, 1), (10, 1), (10, 2)])
        first = run(arriving, prefill=2, decode=2, **routers)
        assert times(first, "transfer_start_s")[0] == [1]
        arriving = trace([0, 0, 0, 0], [(40, 2), (10, 2), (40, 2), (10, 2)])
        result = run(arriving, prefill=2, decode=2, **routers)
        # Prefilled 0, 2 by server 0 and 1, 3 by server 1; sent 0 -> A, 2 -> B, 1 -> A, 3 -> B.
        columns = ("prefill_replica", "replica", "transfer_start_s", "transfer_end_s")
        assert times(result, *columns) == [[0, 2, 1, 5], [1, 2, 5, 6], [0, 3, 5, 9], [1, 3, 9, 10]]


class TestDecodePool:
    def test_waits_for_blocks_with_its_kv(self):
        # Prompts of 31 tokens and answers of 33 fill 4 blocks. The second waits till the first is
        # done.
        result = run(
            trace([0, 0], [(31, 33), (31, 33)]),
            decode=[server(num_blocks=4, watermark=0.3)],
            rate=inf,
        )
        assert times(result, "first_token_s", "finish_s") == [[1, 33], [1, 65]]
        assert result.requests["num_preemptions"].tolist() == [0, 0]

    def test_waits_for_a_slot(self):
        result = run(trace([0, 0], [(16, 3), (16, 3)]), decode=[server(slots=1)], rate=inf)
        assert times(result, "finish_s") == [[3], [5]]

    def test_whoever_is_preempted_computes_its_prompt_again(self):
        # Two of 16 + 17 tokens need 3 blocks each in the end; 4 hold 2 each, until both begin their
        # third.
        result = run(trace([0, 0], [(16, 20), (16, 20)]), decode=[server(num_blocks=5)], rate=inf)
        assert result.requests["num_preemptions"].tolist() == [0, 1]
        again = result.iterations[
            (result.iterations["replica"] == 1) & (result.iterations["num_prefill_tokens"] > 2)
        ]
        assert again["num_prefill_tokens"].tolist() == [16 + 17]
        assert again["prefill_context_tokens"].tolist() == [16 + 17]
        assert result.requests["cached_tokens"].tolist() == [0, 0]

    def test_what_it_has_in_its_own_prefix_cache_takes_no_blocks_twice(self):
        arriving = trace([0, 0], [(33, 3), (33, 3)], hash_ids=[(1, 2, 3), (1, 2, 4)], block_size=16)
        decode = [server(kv=PrefixCachedKV)]
        result = run(arriving, decode=decode, rate=inf)
        rows = result.iterations[result.iterations["replica"] == 1]
        assert rows["kv_blocks_used"].max() == 4  # two shared, one each
        assert decode[0].policy.kv.num_free_blocks == 100

    def test_prefix_hits_of_the_prefill_pool_are_reported(self):
        arriving = trace([0, 5], [(33, 3), (33, 3)], hash_ids=[(1, 2, 3), (1, 2, 4)], block_size=16)
        result = run(arriving, prefill=[server(kv=PrefixCachedKV)], rate=inf)
        assert result.requests["cached_tokens"].tolist() == [0, 32]

    def test_what_it_can_never_hold_is_refused(self):
        result = run(trace([0, 0], [(100, 5), (10, 5)]), decode=[server(num_blocks=3)])
        assert result.requests["status"].tolist() == [
            "refused: its KV of 7 blocks exceeds the cache's 3",
            "finished",
        ]
        result = run(trace([0, 0], [(100, 5), (10, 5)]), prefill=[server(num_blocks=3)])
        assert result.requests["status"].tolist() == [
            "refused: its KV of 7 blocks exceeds the cache's 3",
            "finished",
        ]
        assert result.requests["first_token_s"].isna().tolist() == [True, False]


class TestClientsWhoGo:
    @pytest.mark.parametrize(
        ("timeout_s", "left"),
        [
            (0.5, "while its prompt is computed"),
            (3.0, "while its KV is sent"),
            (8.0, "while it decodes"),
        ],
    )
    def test_wherever_it_is(self, timeout_s, left):
        result = run(trace([0, 0], [(50, 20), (10, 4)], timeout_s=[timeout_s, 1000.0]))
        assert result.requests["status"].tolist() == ["abandoned", "finished"], left
        # The first one's transfer goes to its end even if nobody waits for it any more: the
        # second's begins at 6.
        assert times(result, "finish_s")[1] == [5.0 if timeout_s < 1 else 10.0]

    def test_users_of_a_closed_loop_send_after_the_last_token(self):
        arriving = trace([0, 0], [(10, 2), (10, 2)], concurrency=1)
        assert times(run(arriving), "arrival_s", "finish_s") == [[0, 3], [3, 6]]


def test_without_interference_decodes_keep_their_pace():
    """Use of disaggregation: a long prompt stalls decodes beside it, not on other servers."""
    arriving = trace([0, 0.4], [(16, 100), (1000, 2)])
    timed = LinearStepTime(base_s=0.01, per_token_s=1e-3)
    together = simulate(arriving, server(step_time=timed, budget=2048).policy, timed)
    apart = run(
        arriving, [server(step_time=timed, budget=2048)], [server(step_time=timed)], rate=1e9
    )
    longest_s = [token_gaps(result.iterations)[0].max() for result in (together, apart)]
    assert longest_s[0] == pytest.approx(
        0.01 + 1001 * 1e-3
    )  # the prompt and a decode in one iteration
    assert longest_s[1] < 0.03


def test_overload_of_either_pool_shows():
    arriving = trace(np.arange(200) / 2, [(100, 50)] * 200)
    slow = LinearStepTime(base_s=0.1)
    assert (
        run(arriving, [server(step_time=slow)], [server(slots=32, step_time=slow)], 1e9).meta[
            "offered_load"
        ]
        < 1
    )
    assert (
        run(arriving, [server(step_time=slow)], [server(slots=2, step_time=slow)], 1e9).meta[
            "offered_load"
        ]
        > 1
    )
    assert (
        run(arriving, [server(slots=1, step_time=SECOND)], [server(step_time=slow)], 1e9).meta[
            "offered_load"
        ]
        > 1
    )


@pytest.mark.parametrize("lookahead", [0, 1])
def test_jumps_and_steps_agree(lookahead):
    rng = np.random.default_rng(5)
    arriving = trace(
        np.cumsum(rng.exponential(0.02, 150)),
        np.column_stack([rng.integers(1, 300, 150), rng.geometric(1 / 30, 150)]).tolist(),
    )
    tables = [
        run(
            arriving,
            [server(step_time=GROWING) for _ in range(2)],
            [server(num_blocks=50, step_time=GROWING) for _ in range(2)],
            1e5,
            decode_router="least_kv",
            lookahead=lookahead,
            step_by_step=step_by_step,
        ).requests
        for step_by_step in (False, True)
    ]
    assert tables[0]["num_preemptions"].sum() > 0
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_request_leaves_once_and_takes_nothing_with_it(data):
    count = data.draw(st.integers(1, 20))

    def draw(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    arriving = Trace(
        arrival_s=np.sort(np.array(draw(0, 40)) / 4),
        input_tokens=draw(1, 120),
        output_tokens=draw(1, 60),
        timeout_s=np.array(draw(1, 150)) / 2,
        hash_ids=[tuple(range(kind * 100, kind * 100 + 8)) for kind in draw(0, 2)],
        block_size=16,
    )
    kinds = st.lists(st.sampled_from([PagedKV, PrefixCachedKV]), min_size=1, max_size=3)
    pools = [[server(slots=3, num_blocks=11, kv=kv) for kv in data.draw(kinds)] for _ in range(2)]
    rate = data.draw(st.sampled_from([20.0, 1000.0, inf]))
    result = run(
        arriving, *pools, rate, lookahead=data.draw(st.sampled_from([0, 1])), link_latency_s=0.25
    )

    table = result.requests
    assert table["request_id"].tolist() == list(range(count))
    assert all(
        status in ("finished", "abandoned") or "refused" in status for status in table["status"]
    )
    for replica in pools[0] + pools[1]:
        assert replica.policy.kv.num_free_blocks == replica.policy.kv.num_blocks
        assert replica.policy.num_running == replica.policy.num_waiting == 0
    done = table[table["status"] == "finished"]
    assert (done["finish_s"] >= done["first_token_s"]).all()
    sent = done[done["output_tokens"] > 1]
    assert (sent["replica"] >= len(pools[0])).all()
    np.testing.assert_allclose(
        sent["transfer_end_s"] - sent["transfer_start_s"],
        sent["input_tokens"] * 10 / rate + 0.25,
        atol=1e-9,
    )
    for side in ("prefill_replica", "replica"):  # no link carries two at a time
        for _, own in table[table["transfer_start_s"].notna() & table["finish_s"].notna()].groupby(
            side
        ):
            own = own.sort_values("transfer_start_s")
            ends = own["transfer_end_s"].to_numpy() - 0.25
            assert (own["transfer_start_s"].to_numpy()[1:] >= ends[:-1] - 1e-9).all()


def test_what_cannot_be_is_one_sentence():
    arriving = trace([0], [(8, 2)])
    orca = policy_config("orca").build(KVConfig(num_blocks=10, max_model_len=100))
    shared = server()
    for prefill, decode, rate, options, sentence in (
        ([], 1, 1.0, {}, "the prefill pool has 0 replicas"),
        (1, [], 1.0, {}, "the decode pool has 0 replicas"),
        ([shared], [shared], 1.0, {}, "replicas 0 and 1 share a VllmPolicy"),
        (
            1,
            [Replica(orca, SECOND)],
            1.0,
            {},
            "decode replica 0 runs OrcaPolicy, which cannot take in KV",
        ),
        (1, 1, 0.0, {}, "link_bytes_per_s is 0.0; it must be more than 0"),
        (1, 1, 1.0, {"link_latency_s": -1}, "link_latency_s is -1; it must be 0 or more"),
        (1, 1, 1.0, {"kv_bytes_per_token": -1}, "kv_bytes_per_token is -1; it must be 0 or more"),
        (
            1,
            1,
            1.0,
            {"kv_bytes_per_token": None},
            "a LinearStepTime knows no model; say kv_bytes_per_token",
        ),
        (1, 1, 1.0, {"decode_router": "least_vk"}, "did you mean 'least_kv'"),
    ):
        with pytest.raises(ValueError, match=sentence) as error:
            run(arriving, prefill, decode, rate, **options)
        assert "\n" not in str(error.value)
