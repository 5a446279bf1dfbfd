"""A run in windows is the run of the whole trace, in one process or in several."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from busdoor.catalog import engine
from busdoor.cluster.registry import make_router
from busdoor.cluster.simulate import simulate_cluster
from busdoor.cluster.streamed import is_independent, simulate_windows
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.metrics.hourly import HourlyTotals
from busdoor.policies import StaticPolicy, VllmPolicy
from busdoor.results.columns import ITERATION_COLUMNS
from busdoor.simulator.replica import Replica
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace, resolve
from busdoor_workloads.windows import windows, windows_of

STEP_TIME = LinearStepTime(base_s=0.008, per_token_s=30e-6, per_request_s=60e-6)


def vllm():
    return Replica(VllmPolicy(PagedKV(1500, 16), 32, 1024, 16384), STEP_TIME)


def static():
    return Replica(StaticPolicy(ContiguousKV(64_000, 16), 4, 16384), STEP_TIME)


def trace(n=600, rate=6.0, **changes):
    return replace(
        resolve("azure-conv").generate(seed=3, num_requests=n, request_rate=rate), **changes
    )


def streamed(arrivals, replicas, window_s=20.0, own=None, router="round_robin", **options):
    parts = {number: [] for number in (range(len(replicas)) if own is None else own)}
    sinks = {number: lambda *tables, to=to: to.append(tables) for number, to in parts.items()}
    simulate_windows(windows_of(arrivals, window_s), replicas, sinks, router, **options)
    return {
        number: [pd.concat(tables, ignore_index=True) for tables in zip(*own_parts, strict=True)]
        for number, own_parts in parts.items()
    }


def by_id(tables):
    joined = pd.concat([requests for requests, _, _ in tables.values()])
    return joined.sort_values("request_id", ignore_index=True)


@pytest.mark.parametrize(("make", "ahead"), [(vllm, 1), (vllm, 0), (static, 0)])
@pytest.mark.parametrize("router", ["round_robin", "random", "least_outstanding"])
def test_a_run_in_windows_is_the_run_of_the_whole(make, ahead, router):
    arrivals = trace()
    whole = simulate_cluster(
        arrivals, [make() for _ in range(3)], router, seed=5, lookahead=ahead, iterations=True
    )
    parts = streamed(arrivals, [make() for _ in range(3)], router=router, seed=5, lookahead=ahead)
    pd.testing.assert_frame_equal(by_id(parts), whole.requests, rtol=1e-12, check_dtype=False)
    stays = pd.concat([stays for _, _, stays in parts.values()])
    assert len(stays) == len(whole.stays)
    assert (stays["leave_s"] - stays["enter_s"]).sum() == pytest.approx(
        (whole.stays["leave_s"] - whole.stays["enter_s"]).sum()
    )


def test_timeouts_and_a_front_end_are_those_of_the_whole():
    arrivals = trace(rate=12.0, timeout_s=np.full(600, 3.0))
    options = {"lookahead": 1, "engine": engine("vllm")}
    whole = simulate_cluster(arrivals, [vllm(), vllm()], "round_robin", **options)
    assert (whole.requests["status"] == "abandoned").sum() > 20
    parts = streamed(arrivals, [vllm(), vllm()], window_s=7.0, **options)
    pd.testing.assert_frame_equal(by_id(parts), whole.requests, rtol=1e-12, check_dtype=False)


def test_servers_run_apart_as_they_run_together():
    arrivals = trace()
    together = streamed(arrivals, [vllm() for _ in range(4)])
    for own in ([0, 2], [1], [3]):
        apart = streamed(arrivals, [vllm() for _ in range(4)], own=own)
        for number in own:
            for one, other in zip(apart[number], together[number], strict=True):
                pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_servers_that_a_router_looks_at_do_not_run_apart():
    assert not is_independent("least_outstanding", 2) and is_independent("least_kv", 1)
    with pytest.raises(ValueError, match="LeastOutstanding looks at all 2 servers"):
        streamed(trace(10), [vllm(), vllm()], own=[0], router="least_outstanding")


def test_unequal_servers_get_their_turns():
    arrivals = trace(200)
    replicas = lambda: [Replica(r.policy, r.step_time, w) for r, w in ((vllm(), 1), (vllm(), 2))]  # noqa: E731
    whole = simulate_cluster(arrivals, replicas(), "round_robin")
    parts = streamed(arrivals, replicas())
    assert (by_id(parts)["replica"] == whole.requests["replica"]).all()


def test_an_interruption_keeps_what_was_done():
    kept = []

    def stop(start_s):
        if start_s >= 40:
            raise KeyboardInterrupt

    replicas = [vllm()]
    at_s = simulate_windows(
        windows_of(trace(), 20.0), replicas, {0: lambda *t: kept.append(t)}, at_window=stop
    )
    requests = pd.concat([requests for requests, _, _ in kept])
    whole = simulate_cluster(trace(), [vllm()]).requests
    assert at_s == 40.0
    done = whole[whole["finish_s"] <= 40.0]
    assert sorted(requests["request_id"]) == done["request_id"].tolist()


def test_a_stranding_policy_is_reported():
    class Stuck(VllmPolicy):
        def schedule(self, now_s):
            return None

    with pytest.raises(ValueError, match="Stuck schedules nothing more, but 5 of 5 requests"):
        streamed(trace(5), [Replica(Stuck(PagedKV(100, 16), 4, 512, 16384), STEP_TIME)])


@pytest.mark.parametrize("make", [vllm, static])
def test_totals_of_parts_are_those_of_the_tables(make):
    whole = simulate_cluster(trace(), [make()], meta={"slo": {"ttft": 1.0}})
    totals = HourlyTotals(
        streams=whole.meta["streams"],
        slo_s={"ttft": 1.0},
        block_size=16,
        num_blocks=whole.meta["num_blocks"],
    )
    simulate_windows(windows_of(trace(), 20.0), [make()], {0: totals.add})
    totals.finish()
    own, summary = totals.sketches, whole.summary
    for name, key in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el"), ("itl", "itl")):
        if own[name].count:
            assert own[name].percentile(99) * 1e3 == pytest.approx(summary[f"p99_{key}_ms"])
            assert own[name].mean * 1e3 == pytest.approx(summary[f"mean_{key}_ms"])
        else:
            assert np.isnan(summary[f"p99_{key}_ms"])
    sums = totals.sums.sum()
    assert 1 - sums["useful"] / sums["taken"] == pytest.approx(summary["bubble_share"])
    assert sums["kv_reserved_s"] / sums["kv_capacity_s"] == pytest.approx(
        summary["kv_reserved_share"]
    )
    assert sums["iterations"] == whole.iterations["repeat"].sum()
    assert set(ITERATION_COLUMNS) <= set(whole.iterations)


def test_sessions_run_apart_as_they_run_together():
    chat = replace(
        resolve("azure-conv").at_rate(4.0),
        multi_turn={"turns": 4, "think_time_s": 5.0},
        shared_prefix={"num_groups": 2, "prefix_tokens": 64},
    )
    drawn = list(windows(chat, seed=4, duration_s=120, window_s=20))
    whole = joined(drawn)

    def servers():
        kv = [PrefixCachedKV(1500, 16) for _ in range(3)]
        return [Replica(VllmPolicy(own, 32, 1024, 32768), STEP_TIME) for own in kv]

    expected = simulate_cluster(whole, servers(), "session_hash").requests
    found = []
    for own in ([0], [1, 2]):
        sinks = {number: lambda requests, *_: found.append(requests) for number in own}
        simulate_windows(drawn, servers(), sinks, "session_hash")
    requests = pd.concat(found).sort_values(["arrival_s", "request_id"], ignore_index=True)
    expected = expected.sort_values(["arrival_s", "request_id"], ignore_index=True)
    columns = [name for name in expected if name != "request_id"]
    pd.testing.assert_frame_equal(
        requests[columns], expected[columns], rtol=1e-12, check_dtype=False
    )
    assert requests["cached_tokens"].sum() > 0.1 * requests["input_tokens"].sum()
    assert len(requests) == len(whole) and requests["replica"].nunique() == 3


def joined(drawn):
    """Return windows as one trace, in order of arrival."""
    traces = [window.trace for window in drawn if len(window.trace)]
    frame = pd.concat([one.to_frame() for one in traces]).sort_values("arrival_s", kind="stable")
    columns = {
        name: frame[name].tolist() if name == "hash_ids" else frame[name].to_numpy()
        for name in frame
    }
    return Trace(**columns, block_size=traces[0].block_size)


def test_a_session_hash_shares_by_weight_and_by_turns():
    router = make_router("session_hash")
    router.connect([], weights=[1, 3])
    sessions = Trace(
        arrival_s=np.zeros(4000), input_tokens=np.ones(4000), output_tokens=np.ones(4000),
        session_id=np.arange(4000),
    )  # fmt: skip
    servers = router.assign(sessions)
    assert servers.mean() == pytest.approx(0.75, abs=0.03)
    assert [router.choose(Request(0, 0.0, 1, 1, session_id=s)) for s in range(50)] == (
        servers[:50].tolist()
    )
    alone = router.assign(trace(5))
    assert [*alone, router.choose(Request(0, 0.0, 1, 1))] == [0, 1, 0, 1, 0, 1]
