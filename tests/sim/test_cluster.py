"""Replicas behind a router: by hand, against one server and queueing, and any case."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.cluster import ROUTERS, PrefixAffinity, Replica, Router, make_router, simulate_cluster
from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.plots import plot_kv, plot_occupancy, plot_timeline
from busdoor.policies import VllmPolicy, policy_config
from busdoor.results.result import Result
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime, make_step_time
from busdoor_workloads import Trace
from busdoor_workloads.streams import stream

SECOND = LinearStepTime(base_s=1.0)
GROWING = LinearStepTime(base_s=0.01, per_token_s=1e-4, per_context_s=1e-6)


def replica(slots=4, num_blocks=100, step_time=SECOND, weight=1.0, kv=PagedKV):
    return Replica(VllmPolicy(kv(num_blocks, 16), slots, 512, 1600), step_time, weight)


def trace(arrival_s, lengths, **columns):
    inputs, outputs = zip(*lengths, strict=True)
    return Trace(arrival_s=arrival_s, input_tokens=inputs, output_tokens=outputs, **columns)


def connected(router, count=3, weights=None, seed=0, **server):
    env = simpy.Environment()
    policies = [replica(**server).policy for _ in range(count)]
    router = make_router(router) if isinstance(router, str) else router
    router.connect([Server(env, policy, SECOND) for policy in policies], weights=weights, seed=seed)
    return router


def requests(count, input_tokens=10, output_tokens=10, **fields):
    return [Request(i, 0.0, input_tokens, output_tokens, **fields) for i in range(count)]


def uneven(count=300, rate=40.0, seed=3):
    """Poisson arrivals of uneven lengths, some in sessions, all with shared blocks."""
    draws = stream(seed, "test")
    arrival_s = np.cumsum(draws.exponential(1 / rate, count))
    inputs, outputs = draws.integers(1, 200, count), draws.geometric(1 / 30, count).clip(max=300)
    hash_ids = [
        tuple(int(draws.integers(3)) * 100 + i for i in range(-(-tokens // 16)))
        for tokens in inputs.tolist()
    ]
    return Trace(
        arrival_s=arrival_s,
        input_tokens=inputs,
        output_tokens=outputs,
        hash_ids=hash_ids,
        block_size=16,
    )


class TestChoosing:
    def test_round_robin_takes_turns(self):
        router = connected("round_robin")
        assert [router.place(request) for request in requests(7)] == [0, 1, 2, 0, 1, 2, 0]

    def test_round_robin_keeps_to_weights(self):
        router = connected("round_robin", weights=[3, 1, 2])
        assert Counter(router.place(request) for request in requests(60)) == {0: 30, 1: 10, 2: 20}

    def test_random_keeps_to_weights_and_to_its_seed(self):
        def draw(seed):
            router = connected("random", weights=[3, 1, 2], seed=seed)
            return [router.place(request) for request in requests(6000)]

        counts = Counter(draw(1))
        assert draw(1) == draw(1) != draw(2)
        np.testing.assert_allclose([counts[0], counts[1], counts[2]], [3000, 1000, 2000], rtol=0.1)

    def test_who_is_foretold_comes(self):
        for name in ("round_robin", "random"):
            router = connected(name, weights=[3, 1, 2])
            assert all(router.next_server() == router.place(request) for request in requests(100))

    def test_least_outstanding_counts_requests_by_weight(self):
        router = connected("least_outstanding", count=2, weights=[2, 1])
        assert [router.place(request) for request in requests(6)] == [0, 0, 1, 0, 0, 1]
        assert router.outstanding == [4, 2]

    def test_shortest_queue_counts_tokens_and_caps(self):
        router = connected("shortest_queue", count=2)
        assert router.place(Request(0, 0.0, 100, 10)) == 0
        assert router.place(Request(1, 0.0, 10, 10, max_output_tokens=200)) == 1
        assert [router.place(request) for request in requests(5, 10, 10)] == [0, 0, 0, 0, 0]
        assert router.outstanding_tokens == [210, 210]

    def test_power_of_two_prefers_the_emptier_of_two(self):
        router = connected("power_of_two", count=10)
        counts = Counter(router.place(request) for request in requests(1000))
        assert max(counts.values()) - min(counts.values()) <= 4  # at random it would be some 50

    def test_least_kv_takes_the_emptiest_cache(self):
        # Prompts of 5 blocks to 0 and of 1 block to 1; a third joins 1, where 2 blocks will be
        # taken.
        result = simulate_cluster(
            trace([0, 0.5, 1.5, 2.5], [(80, 9), (10, 9), (30, 9), (10, 9)]),
            [replica(), replica()],
            "least_kv",
        )
        assert result.requests["replica"].tolist() == [0, 1, 1, 1]

    def test_least_kv_counts_blocks_that_grew_during_a_stretch(self):
        # Server 0 begins with 1 block and has grown to 4 at 50 s; server 1 has 3 all the time (it
        # ends at 2 s + ...).
        arriving = trace([0, 1, 50], [(10, 60), (46, 2), (10, 2)])
        late = trace([0, 1, 1.5, 50], [(10, 60), (46, 2), (33, 90), (10, 2)])
        assert simulate_cluster(arriving, [replica(), replica()], "least_kv").requests[
            "replica"
        ].tolist() == [0, 1, 1]
        jumps = simulate_cluster(late, [replica(), replica()], "least_kv")
        steps = simulate_cluster(late, [replica(), replica()], "least_kv", step_by_step=True)
        assert jumps.requests["replica"].tolist() == steps.requests["replica"].tolist()

    def test_sessions_stay_where_they_began(self):
        router = connected("session_affinity")
        ids = [5, 6, 7, 6, 6, 5, -1]
        placed = [
            router.place(Request(i, 0.0, 8, 8, session_id=session)) for i, session in enumerate(ids)
        ]
        assert placed == [0, 1, 2, 1, 1, 0, 2]  # the last has no session: server 2 has the fewest

    def test_prefixes_go_where_the_longest_part_is_known(self):
        router = connected("prefix_affinity")
        prompts = [
            (1, 2, 3),
            (1, 2, 9),
            (7, 8),
            (1, 2, 3, 4),
            (1, 2, 9, 4),
            (7, 8, 9),
            (1, 5, 6, 7),
        ]
        placed = [
            router.place(Request(i, 0.0, 64, 8, hash_ids=ids)) for i, ids in enumerate(prompts)
        ]
        # The last knows a quarter of its prompt, less than min_match: it goes to the fewest, as do
        # the new ones.
        assert placed == [0, 0, 1, 0, 0, 1, 2]

    def test_a_prefix_that_everybody_has_does_not_bring_everybody_to_one_server(self):
        router = connected(PrefixAffinity(max_lead=3))
        for request in requests(40, 64, 8, hash_ids=(1, 2, 3, 4)):
            router.place(request)
        assert max(router.outstanding) - min(router.outstanding) <= 7
        assert min(router.outstanding) > 5


class TestOneReplica:
    @pytest.mark.parametrize("router", ROUTERS)
    def test_is_the_server_itself(self, router):
        arriving = uneven(200, rate=20.0)
        alone = simulate(arriving, replica(step_time=GROWING, kv=PrefixCachedKV).policy, GROWING)
        cluster = simulate_cluster(
            arriving, [replica(step_time=GROWING, kv=PrefixCachedKV)], router
        )
        for name in ("requests", "iterations", "stays"):
            pd.testing.assert_frame_equal(
                getattr(cluster, name), getattr(alone, name), check_exact=True
            )
        pd.testing.assert_series_equal(cluster.summary, alone.summary, check_exact=True)

    def test_is_the_server_itself_for_a_static_batch_on_a_roofline(self):
        arriving = uneven(100, rate=20.0)
        roofline = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")
        config = policy_config("static", batch_size=8)
        kv = KVConfig(num_blocks=1000, max_model_len=600)
        alone = simulate(arriving, config.build(kv, arriving), roofline)
        cluster = simulate_cluster(arriving, [Replica(config.build(kv, arriving), roofline)])
        pd.testing.assert_series_equal(cluster.summary, alone.summary, check_exact=True)


class TestResult:
    def test_tables_say_which_replica(self):
        arriving = trace([0, 0, 0, 0, 2.5], [(8, 4), (8, 9), (8, 4), (8, 9), (8, 2)])
        result = simulate_cluster(arriving, [replica(2), replica(2)], "round_robin")
        assert result.requests["replica"].tolist() == [0, 1, 0, 1, 0]
        assert result.stays[["request_id", "replica", "slot"]].to_numpy().tolist() == [
            [0, 0, 0],
            [1, 1, 0],
            [2, 0, 1],
            [3, 1, 1],
            [4, 0, 0],
        ]
        assert sorted(set(result.iterations["replica"])) == [0, 1]
        assert result.iterations["start_s"].is_monotonic_increasing

    def test_summary_is_of_the_whole(self):
        # Two servers with the same work, one after the other in time for neither: everything is as
        # for one, or twice.
        arriving = trace([0, 0], [(8, 10), (8, 10)])
        one = simulate(trace([0], [(8, 10)]), replica(2).policy, SECOND).summary
        two = simulate_cluster(arriving, [replica(2), replica(2)]).summary
        same = [
            "slot_use",
            "useful_share",
            "kv_used_share",
            "kv_reserved_share",
            "mean_itl_ms",
            "mean_batch_size_time",
        ]
        assert two[same].tolist() == pytest.approx(one[same].tolist())
        for key in (
            "output_throughput",
            "max_output_tokens_per_s",
            "completed",
            "max_concurrent_requests",
        ):
            assert two[key] == pytest.approx(2 * one[key])

    def test_memory_shares_are_of_each_replicas_own_memory(self):
        # 10 tokens in one block: a tenth of server 0's cache, a hundredth of server 1's; both busy
        # for 2 s.
        arriving = trace([0, 0], [(10, 2), (10, 2)])
        result = simulate_cluster(
            arriving, [replica(num_blocks=10), replica(num_blocks=100)], "round_robin"
        )
        assert result.summary["kv_reserved_share"] == pytest.approx(2 / 110)
        assert result.meta["num_blocks"] == 110
        assert [part["num_blocks"] for part in result.meta["replicas"]] == [10, 100]

    def test_gaps_between_tokens_are_within_a_server(self):
        # Server 1's long iterations do not come between the tokens of server 0.
        arriving = trace([0, 0.3], [(8, 20), (8, 4)])
        replicas = [replica(), replica(step_time=LinearStepTime(base_s=3.0))]
        summary = simulate_cluster(arriving, replicas, "round_robin").summary
        assert summary["median_itl_ms"] == pytest.approx(1000)
        assert summary["mean_itl_ms"] == pytest.approx((19 * 1000 + 3 * 3000) / 22)

    def test_replicas_may_differ(self):
        kv = KVConfig(num_blocks=100, max_model_len=500)
        arriving = trace([0, 0, 0], [(8, 4), (8, 4), (8, 4)])
        static = policy_config("static", batch_size=2).build(kv, arriving)
        result = simulate_cluster(
            arriving, [Replica(static, SECOND), replica(step_time=GROWING)], "round_robin"
        )
        assert result.requests["replica"].tolist() == [0, 1, 0]
        assert result.requests["finish_s"].round(2).tolist() == [4, 0.04, 4]
        assert result.meta["policy"] == "static + vllm"
        assert result.summary.isna()["mean_tpot_ms"]  # some answers are released whole

    def test_figures_show_one_replica(self):
        from matplotlib import pyplot

        arriving = trace([0, 0, 0.5], [(10, 20), (10, 30), (10, 5)])
        result = simulate_cluster(
            arriving, [replica(num_blocks=10), replica(num_blocks=100)], "round_robin"
        )
        for plot in (plot_kv, plot_occupancy, plot_timeline):
            plot(result, replica=1)
        assert plot_kv(result, replica=1).get_ylim()[1] == pytest.approx(1.32 * 1600)
        assert {event["pid"] for event in result.to_perfetto()["traceEvents"]} == {0, 1}
        pyplot.close("all")

    def test_tables_come_back_from_a_folder(self, tmp_path):
        result = simulate_cluster(trace([0, 0], [(8, 2), (8, 3)]), [replica(), replica()])
        back = Result.load(result.save(tmp_path))
        pd.testing.assert_frame_equal(back.iterations, result.iterations)
        assert back.summary["kv_used_share"] == result.summary["kv_used_share"]

    def test_load_is_shared(self):
        arriving = uneven(400, rate=30.0)
        one = simulate_cluster(arriving, [replica(step_time=GROWING)]).meta["offered_load"]
        three = simulate_cluster(arriving, [replica(step_time=GROWING) for _ in range(3)]).meta[
            "offered_load"
        ]
        assert three == pytest.approx(one / 3)


def test_with_more_to_go_by_a_router_makes_requests_wait_less():
    """M/M/c-like: one slot, exponential lengths, load 0.85; the same draws for all."""
    waits = {name: [] for name in ("least_outstanding", "power_of_two", "random")}
    for seed in range(3):
        draws = stream(seed, "test")
        arrival_s = np.cumsum(draws.exponential(100 / 8 / 0.85, 4000))
        outputs = draws.geometric(1 / 100, 4000)
        arriving = Trace(
            arrival_s=arrival_s, input_tokens=np.ones(4000, dtype=int), output_tokens=outputs
        )
        for name, mean in waits.items():
            cluster = [
                Replica(VllmPolicy(PagedKV(1000, 16), 1, 64, 5000), SECOND) for _ in range(8)
            ]
            table = simulate_cluster(arriving, cluster, name, seed=seed, iterations=False).requests
            mean.append((table["first_scheduled_s"] - table["arrival_s"]).mean())
    shortest, two, random = (np.array(mean) for mean in waits.values())
    assert (shortest < two).all()
    assert (two < random).all()
    # At random each is an M/M/1 of its own: its mean wait is load / (1 - load) services.
    assert random.mean() == pytest.approx(100 * 0.85 / 0.15, rel=0.2)


def test_jumps_and_steps_agree():
    for router in ROUTERS:
        tables = [
            simulate_cluster(
                uneven(120, 80.0),
                [replica(num_blocks=60, step_time=GROWING) for _ in range(3)],
                router,
                lookahead=lookahead,
                step_by_step=step_by_step,
            ).requests
            for lookahead in (0, 1)
            for step_by_step in (False, True)
        ]
        for jumps, steps in (tables[:2], tables[2:]):
            pd.testing.assert_frame_equal(jumps, steps, check_exact=False, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_request_leaves_once_and_takes_nothing_with_it(data):
    count = data.draw(st.integers(1, 25))

    def draw(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    sessions = draw(0, 3)
    arriving = Trace(
        arrival_s=np.sort(np.array(draw(0, 40)) / 4),
        input_tokens=draw(1, 120),
        output_tokens=draw(1, 60),
        session_id=sessions,
        turn=[sessions[:i].count(session) for i, session in enumerate(sessions)],
        timeout_s=np.array(draw(1, 90)) / 2,
        hash_ids=[tuple(range(session * 100, session * 100 + 8)) for session in sessions],
        block_size=16,
    )
    name = data.draw(st.sampled_from(sorted(ROUTERS)))
    caches = data.draw(st.lists(st.sampled_from([PagedKV, PrefixCachedKV]), min_size=1, max_size=4))
    replicas = [
        replica(slots=2 + i, num_blocks=9 + 3 * i, weight=1 + i, kv=kv)
        for i, kv in enumerate(caches)
    ]
    router = make_router(name)
    result = simulate_cluster(
        arriving, replicas, router, seed=1, lookahead=data.draw(st.sampled_from([0, 1]))
    )

    table = result.requests
    assert table["request_id"].tolist() == list(range(count))
    assert all(
        status in ("finished", "abandoned") or "refused" in status for status in table["status"]
    )
    assert router.outstanding == router.outstanding_tokens == [0] * len(replicas)
    for own in replicas:
        assert own.policy.kv.num_free_blocks == own.policy.kv.num_blocks
        assert own.policy.num_running == own.policy.num_waiting == 0
    if name == "session_affinity":
        assert table.groupby(np.array(sessions))["replica"].nunique().max() == 1
    for _, stays in result.stays.groupby(["replica", "slot"]):
        assert (stays["enter_s"].to_numpy()[1:] >= stays["leave_s"].to_numpy()[:-1]).all()


class OnlyLast(Router):
    """A router of one's own."""

    def choose(self, request):
        return len(self.servers) - 1


class OneTooMany(Router):
    def choose(self, request):
        return len(self.servers)


class TestNames:
    def test_own_router_by_import_path(self):
        path = "tests_own_routers:OnlyLast"
        import sys
        from types import ModuleType

        module = ModuleType("tests_own_routers")
        module.OnlyLast, module.Wrong = OnlyLast, dict
        sys.modules["tests_own_routers"] = module
        try:
            result = simulate_cluster(trace([0, 0], [(8, 2), (8, 2)]), [replica(), replica()], path)
            assert result.requests["replica"].tolist() == [1, 1]
            assert result.meta["router"] == path
            with pytest.raises(
                ValueError, match=r"is not a router; subclass busdoor\.cluster\.router\.Router"
            ):
                make_router("tests_own_routers:Wrong")
            with pytest.raises(ValueError, match="cannot be made a router of"):
                make_router(path, depth=3)
        finally:
            del sys.modules["tests_own_routers"]

    @pytest.mark.parametrize(
        ("router", "sentence"),
        [
            ("round_robbin", "'round_robbin' is not a router; did you mean 'round_robin'?"),
            (
                {"name": "random", "sed": 1},
                r"\[router\]: 'random' has no settings, so 'sed' is not one of them",
            ),
            (
                {"name": "prefix_affinity", "min_match": 2},
                r"\[router\] min_match = 2: input should be less than",
            ),
            ({"min_match": 2}, "has no name"),
            (OneTooMany(), "OneTooMany chose server 2 of 2; they count from 0"),
        ],
    )
    def test_wrong_routers_are_one_sentence(self, router, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            simulate_cluster(trace([0], [(8, 2)]), [replica(), replica()], router)
        assert "\n" not in str(error.value)

    def test_wrong_replicas_are_one_sentence(self):
        arriving = trace([0], [(8, 2)], hash_ids=[(1,)], block_size=16)
        one = replica()
        kv = PagedKV(10, 16)
        sharing = [Replica(VllmPolicy(kv, 4, 512, 160), SECOND) for _ in range(2)]
        other = Replica(VllmPolicy(PagedKV(10, 8), 4, 512, 80), SECOND)
        for replicas, sentence in (
            ([], "a cluster of 0 replicas serves no request"),
            ([one, replica(), one], "replicas 0 and 2 share a VllmPolicy; each needs its own"),
            (sharing, "replicas 0 and 1 share a PagedKV; each needs its own"),
            ([one, other], "KV blocks of 8 and of 16 tokens"),
        ):
            with pytest.raises(ValueError, match=sentence):
                simulate_cluster(arriving, replicas)
