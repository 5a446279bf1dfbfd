"""The simulator behind OpenAI's API: what a client gets, for every kind of policy."""

import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from busdoor.catalog import Engine
from busdoor.core.request import Request as SimRequest
from busdoor.kv.config import KVConfig
from busdoor.observe.api import observe
from busdoor.observe.live import LiveServer
from busdoor.observe.prometheus import samples
from busdoor.observe.stand_in import stand_in
from busdoor.policies import policy_config
from busdoor_workloads import Trace

from .conftest import small_policy


def post(url, path="/v1/completions", **body):
    data = json.dumps({"model": "simulated", "max_tokens": 3, **body}).encode()
    with urlopen(Request(url + path, data, {"Content-Type": "application/json"})) as answer:
        return answer.read().decode()


def refusal(url, path="/v1/completions", **body):
    with pytest.raises(HTTPError) as caught:
        post(url, path, **body)
    with caught.value as answer:
        return answer.code, json.loads(answer.read())["error"]["message"]


@pytest.fixture
def url(policy, step_time):
    with stand_in(policy, step_time) as address:
        yield address


def test_a_completion(url):
    answer = json.loads(post(url, prompt=[7, 8, 9, 10]))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 3


def test_a_stream_has_a_chunk_per_token_and_the_usage_last(url):
    text = post(
        url, prompt="four words of prompt", stream=True, stream_options={"include_usage": True}
    )
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert [bool(chunk["choices"]) for chunk in chunks] == [True, True, True, False]
    assert chunks[-1]["usage"]["total_tokens"] == 4 + 3


def test_a_chat(url):
    messages = [{"role": "user", "content": "hello you"}]
    answer = json.loads(post(url, "/v1/chat/completions", messages=messages))
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "other", "prompt": [1]}, "model 'other' is not served"),
        ({"prompt": [1], "max_tokens": 0}, "max_tokens is 0"),
        ({"prompt": []}, "prompt must be a text or one list of token ids"),
        ({"prompt": [1] * 2000}, "refused"),
    ],
)
def test_what_cannot_be_served_is_a_sentence_with_status_400(url, body, says):
    code, message = refusal(url, **body)
    assert code == 400
    assert says in message


def test_the_page_of_metrics_has_the_names_of_vllm(url):
    post(url, prompt=[1] * 20)
    with urlopen(f"{url}/metrics") as page:
        found = {sample.name: sample.value for sample in samples(page.read().decode())}
    assert found["vllm:prompt_tokens_total"] == 20
    assert found["vllm:generation_tokens_total"] == 3
    assert found["vllm:num_requests_running"] == 0


POLICIES = [
    ("static", {"batch_size": 4, "max_wait_s": 0.02}),
    ("static", {"batch_size": 4, "max_wait_s": 0.02, "release": "request"}),
    ("dynamic", {"batch_size": 4}),
    ("orca", {}),
    ("prefill_first", {}),
    ("tgi", {}),
    ("transformers", {}),
    ("trtllm", {}),
]


@pytest.mark.parametrize(("name", "settings"), POLICIES, ids=lambda value: str(value))
def test_every_policy_delivers_all_tokens(step_time, name, settings):
    trace = Trace(
        arrival_s=[0, 0, 0.01, 0.02, 0.03],
        input_tokens=[20, 30, 5, 60, 9],
        output_tokens=[4, 9, 1, 3, 12],
    )
    kv = KVConfig(num_blocks=400, max_model_len=512)
    policy = policy_config(name, **settings).build(kv, trace)
    with stand_in(policy, step_time) as address:
        table = observe(address, trace).result.requests
    assert table["status"].tolist() == ["finished"] * 5
    streams = policy.streams
    assert table["chunks"].tolist() == ([4, 9, 1, 3, 12] if streams else [1] * 5)


def test_a_client_that_goes_away_frees_the_slot(step_time):
    import http.client

    policy = small_policy(max_num_seqs=1)
    with stand_in(policy, step_time) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        body = {"model": "simulated", "prompt": [1], "max_tokens": 900, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        connection.getresponse().read(1)
        connection.close()
        assert "choices" in post(address, prompt=[5])  # there is one slot


def test_a_request_passes_the_engines_front_end(step_time):
    """0.3 s of it, of which HTTP and Python here are a part."""
    slow = Engine(name="slow", frontend_per_request_s=0.2, frontend_per_token_s=0.01)
    one = Trace(arrival_s=[0], input_tokens=[10], output_tokens=[2])
    with stand_in(small_policy(), step_time, engine=slow) as address:
        seen = observe(address, one).result
    assert 0.28 < float(seen.latencies["ttft"][0]) < 0.6  # a busy machine delays


def test_a_client_that_goes_away_in_the_front_end_never_enters(step_time):
    policy, received = small_policy(), []
    with LiveServer(policy, step_time, received.extend) as server:
        gone = server.submit(SimRequest(0, 0.0, 20, 3), delay_s=0.1)
        stays = server.submit(SimRequest(1, 0.0, 20, 1), delay_s=0.15)
        assert gone.cancel()
        assert stays.result(5) == "waiting"
    assert {request.request_id for request, _ in received} <= {1}


def test_its_medians_are_those_simulated():
    """Measured on a quiet machine by benchmarks/serve.py: within 1 ms + 1 %."""
    kept = json.loads((Path(__file__).parents[2] / "measured" / "serve.json").read_text())
    assert sorted(kept) == ["16", "4"]
    for found in kept.values():
        for name in ("sockets", "observe"):
            for key in ("ttft_p50_ms", "itl_p50_ms"):
                true = found["simulated"][key]
                assert abs(found[name][key] - true) <= 1.0 + 0.01 * true
