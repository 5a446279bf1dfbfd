"""`observe`: what is sent when, what is kept, and what a server that misbehaves leaves."""

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from aiohttp import web

from busdoor.observe.api import observe
from busdoor.observe.how import How
from busdoor.observe.stand_in import stand_in
from busdoor.observe.watch import ServerError
from busdoor.simulator.simulate import simulate
from busdoor_workloads import Trace

from .conftest import http_server, small_policy, stream

CHUNK = '{"choices": [{"index": 0, "text": " w", "finish_reason": null}]}'
USAGE = '{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'


def trace(n=6, **columns):
    return Trace(
        **{
            "arrival_s": np.arange(n) * 0.03,
            "input_tokens": np.full(n, 20),
            "output_tokens": np.full(n, 4),
            **columns,
        }
    )


class TestWhatIsKept:
    def test_every_request_has_its_times_and_tokens(self, policy, step_time):
        with stand_in(policy, step_time) as url:
            seen = observe(url, trace())
        table = seen.result.requests
        assert table["status"].tolist() == ["finished"] * 6
        assert table["output_tokens"].tolist() == [4] * 6
        assert table["arrival_s"].to_numpy() == pytest.approx(np.arange(6) * 0.03, abs=1e-6)
        assert (table["sent_s"] >= table["arrival_s"]).all()
        assert (table["first_token_s"] > table["sent_s"]).all()
        assert (table["finish_s"] > table["first_token_s"]).all()
        assert seen.chunks.groupby("request_id").size().tolist() == [4] * 6
        gaps_s = seen.result.meta["itls_s"]
        assert len(gaps_s) == 6 * 3
        assert seen.result.summary["mean_itl_ms"] == pytest.approx(1e3 * np.mean(gaps_s))

    def test_the_server_says_its_memory_and_limits(self, policy, step_time):
        with stand_in(policy, step_time, model="mine") as url:
            meta = observe(url, trace()).result.meta
        assert meta["served_model"] == "mine"
        assert (meta["num_blocks"], meta["block_size"], meta["max_model_len"]) == (200, 16, 1024)
        assert meta["after"]["generation_tokens"] - meta["before"]["generation_tokens"] == 24

    def test_the_warm_up_is_sent_and_left_out(self, policy, step_time):
        with stand_in(policy, step_time) as url:
            seen = observe(url, trace(2), How(warm_up=5))
        assert len(seen.result.requests) == 2
        assert seen.result.meta["before"]["generation_tokens"] == 20

    def test_shared_blocks_are_found_in_the_prefix_cache(self, step_time):
        from busdoor.kv.prefix_cache import PrefixCachedKV
        from busdoor.policies.vllm import VllmPolicy

        policy = VllmPolicy(
            PrefixCachedKV(200, 16), max_num_seqs=8, max_num_batched_tokens=256, max_model_len=1024
        )
        shared = trace(
            3,
            arrival_s=[0, 0.1, 0.2],
            input_tokens=[80, 80, 80],
            hash_ids=[(1, 2, 3, 4, 5), (1, 2, 3, 4, 9), (11, 12, 13, 14, 15)],
            block_size=16,
        )
        with stand_in(policy, step_time) as url:
            table = observe(url, shared).result.requests
        assert table["cached_tokens"].tolist() == [0, 64, 0]

    def test_the_key_is_sent_and_written_nowhere(self, misbehaving):
        keys = []

        async def answer(request):
            keys.append(request.headers.get("Authorization"))
            return await stream(CHUNK, CHUNK, USAGE, "[DONE]")(request)

        with misbehaving(answer) as url:
            seen = observe(url, trace(1, output_tokens=[2]), How(key="s3cret"))
        assert set(keys) == {"Bearer s3cret"}
        assert "s3cret" not in repr(seen.result.meta) + seen.result.requests.to_csv() + repr(
            How(key="s3cret")
        )


class TestWhenItIsSent:
    def test_a_closed_loop_keeps_so_many_in_flight(self, policy, step_time):
        closed = trace(12, arrival_s=np.zeros(12), concurrency=3)
        with stand_in(policy, step_time) as url:
            seen = observe(url, closed)
        assert seen.result.meta["client"]["most_in_flight"] == 3
        assert (seen.result.requests["status"] == "finished").all()

    def test_a_cap_holds_due_requests_back_and_is_noted(self, policy, step_time):
        burst = trace(8, arrival_s=np.zeros(8))
        with stand_in(policy, step_time) as url:
            seen = observe(url, burst, How(max_in_flight=2))
        table = seen.result.requests
        assert seen.result.meta["client"]["most_in_flight"] == 2
        assert seen.result.meta["max_in_flight"] == 2
        assert (table["sent_s"] - table["arrival_s"]).max() > 0.05  # four rounds of 5 iterations
        assert not any("after they were due" in doubt for doubt in seen.doubts)  # as asked

    def test_a_session_waits_for_the_answer_and_thinks(self, policy, step_time):
        turns = trace(
            3,
            arrival_s=[0.0, 0.0, 0.0],
            session_id=[5, 5, 6],
            turn=[0, 1, 0],
            think_time_s=[0.0, 0.05, 0.0],
        )
        with stand_in(policy, step_time) as url:
            table = observe(url, turns).result.requests
        assert table["sent_s"][1] >= table["finish_s"][0] + 0.05
        assert table["sent_s"][2] < table["finish_s"][0]

    def test_an_impatient_client_gives_up_and_frees_the_slot(self, step_time):
        impatient = trace(2, output_tokens=[900, 2], arrival_s=[0, 0], timeout_s=[0.1, np.nan])
        policy = small_policy()
        with stand_in(policy, step_time) as url:
            table = observe(url, impatient).result.requests
        assert table["status"].tolist() == ["abandoned", "finished"]
        assert policy.num_running == 0


class TestTruth:
    def test_what_is_seen_is_what_is_simulated(self, step_time):
        """Medians, against `simulate` of the trace: HTTP and two Python threads add some ms."""
        draws = np.random.default_rng(3)
        served = trace(
            60,
            arrival_s=np.cumsum(draws.exponential(1 / 30, 60)),
            input_tokens=draws.integers(10, 200, 60),
            output_tokens=draws.integers(2, 40, 60),
        )
        simulated = simulate(served, small_policy(), step_time)
        with stand_in(small_policy(), step_time) as url:
            seen = observe(url, served)
        found, wanted = seen.result.latencies.median(), simulated.latencies.median()
        assert (
            -0.004 < found["ttft"] - wanted["ttft"] < 0.020
        )  # an iteration is 4 ms; a busy machine delays
        assert found["tpot"] == pytest.approx(wanted["tpot"], rel=0.15, abs=0.001)


class TestAServerThatMisbehaves:
    @pytest.mark.parametrize(
        ("status", "ends"), [(429, "refused"), (400, "refused"), (500, "failed"), (503, "failed")]
    )
    def test_its_errors_are_rows(self, misbehaving, status, ends):
        calls = []

        async def answer(request):
            calls.append(1)
            if len(calls) > 3:  # the warm-up is answered
                return web.json_response({"error": {"message": "too busy"}}, status=status)
            return await stream(CHUNK, USAGE, "[DONE]")(request)

        with misbehaving(answer) as url:
            table = observe(url, trace(2)).result.requests
        assert table["status"].str.startswith(ends).all()
        assert table["http_status"].tolist() == [status] * 2
        assert table["error"].tolist() == ["too busy"] * 2

    def test_a_broken_stream_has_failed(self, misbehaving):
        calls = []

        async def answer(request):
            calls.append(1)
            if len(calls) > 3:
                return await stream(CHUNK)(request)
            return await stream(CHUNK, USAGE, "[DONE]")(request)

        with misbehaving(answer) as url:
            seen = observe(url, trace(1))
        assert seen.result.requests["status"].tolist() == ["failed"]
        assert "1 of 1 requests failed" in seen.doubts

    def test_another_length_than_asked_is_a_doubt(self, misbehaving):
        with misbehaving(stream(CHUNK, CHUNK, USAGE, "[DONE]")) as url:
            seen = observe(url, trace(1, output_tokens=[7]))
        assert seen.result.requests["status"].tolist() == ["other length"]
        assert any("another length" in doubt for doubt in seen.doubts)

    def test_a_chunk_may_hold_several_tokens(self, misbehaving):
        usage = USAGE.replace('"completion_tokens": 2', '"completion_tokens": 6')
        with misbehaving(stream(CHUNK, CHUNK, usage, "[DONE]")) as url:
            table = observe(url, trace(1, output_tokens=[6])).result.requests
        assert table[["output_tokens", "chunks", "status"]].to_numpy().tolist() == [
            [6, 2, "finished"]
        ]

    def test_no_server(self):
        with pytest.raises(
            ServerError, match=r"nothing answers at http://127\.0\.0\.1:9/v1/models"
        ):
            observe("http://127.0.0.1:9", trace(1))

    def test_a_page_of_another_kind(self):
        async def page(request):
            return web.Response(text="<html>hello</html>", content_type="text/html")

        with (
            http_server({("GET", "/v1/models"): page}) as url,
            pytest.raises(ServerError, match="is no page of"),
        ):
            observe(url, trace(1))

    def test_a_server_that_wants_a_key(self):
        async def page(request):
            return web.Response(status=401)

        with (
            http_server({("GET", "/v1/models"): page}) as url,
            pytest.raises(ServerError, match="OPENAI_API_KEY"),
        ):
            observe(url, trace(1))

    def test_another_model(self, misbehaving):
        with misbehaving(stream(CHUNK, "[DONE]"), ("a", "b")) as url:
            with pytest.raises(ServerError, match="serves a, b; not c"):
                observe(url, trace(1), How(model="c"))
            with pytest.raises(ServerError, match="choose one with --model"):
                observe(url, trace(1))

    def test_a_server_that_does_not_stream(self, misbehaving):
        async def whole(request):
            return web.json_response({"choices": [{"text": "w w"}], "usage": {}})

        with misbehaving(whole) as url, pytest.raises(ServerError, match="is no stream of tokens"):
            observe(url, trace(1))


class TestStaticBatchesOnAnyServer:
    def test_all_in_all_out(self, policy, step_time):
        lengths = [2, 9, 4, 5, 3, 7]
        burst = trace(6, arrival_s=np.zeros(6), output_tokens=lengths)
        with stand_in(policy, step_time) as url:
            seen = observe(url, burst, How(static=3))
        table, meta = seen.result.requests, seen.result.meta
        assert table["output_tokens"].tolist() == lengths
        assert table["finish_s"].nunique() == 2  # two batches, each released whole
        assert table["first_scheduled_s"][3] >= table["finish_s"][0]
        assert seen.chunks.groupby("request_id").size().tolist() == [9] * 3 + [7] * 3
        assert (meta["streams"], meta["whole_batch"]) == (False, True)
        assert seen.doubts == []

    def test_its_saturated_throughput_is_that_of_the_static_policy(self, step_time):
        """The gain of continuous batching can be measured on a server of one's own."""
        from busdoor.kv.config import KVConfig
        from busdoor.policies import policy_config

        draws = np.random.default_rng(2)
        burst = trace(32, arrival_s=np.zeros(32), output_tokens=draws.integers(2, 30, 32))
        kv = KVConfig(num_blocks=400, max_model_len=128)
        simulated = simulate(
            burst, policy_config("static", batch_size=8).build(kv, burst), step_time
        )
        with stand_in(small_policy(), step_time) as url:
            seen = observe(url, burst, How(static=8))
        wanted = simulated.summary["saturated_output_throughput"]
        assert 0.6 * wanted < seen.result.summary["saturated_output_throughput"] < 1.05 * wanted
