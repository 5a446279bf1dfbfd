"""The `vllm` policy decides as the real vLLM 0.32 V1 did (tests/golden/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest
import simpy

from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.clients import Clients
from busdoor.simulator.server import Server
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

ROOT = Path(__file__).parents[2]
CASES = sorted(
    path
    for path in (ROOT / "tests" / "golden").glob("*.json")
    if not path.name.endswith(".out.json")
)
AZURE = (
    ROOT.parent / "shared" / "golden" / "vllm_v1" / "azure_conv.json"
)  # its lengths may not travel with the project


def cases():
    absent = pytest.mark.skipif(
        not AZURE.exists(), reason="the Azure case is not beside the project"
    )
    return [*CASES, pytest.param(AZURE, marks=absent)]


def load(path):
    """Return the trace by arrival, a policy factory, the step time, and vLLM's decisions."""
    case, expected = (
        json.loads(path.read_text()),
        json.loads(path.with_suffix(".out.json").read_text()),
    )
    config, requests = case["config"], case["requests"]
    order = sorted(range(len(requests)), key=lambda row: requests[row][0])

    def column(i, default):
        return [
            requests[row][i] if len(requests[row]) > i and requests[row][i] is not None else default
            for row in order
        ]

    trace = Trace(
        arrival_s=column(0, 0.0),
        input_tokens=column(1, 0),
        output_tokens=column(2, 0),
        priority=column(3, 0),
        hash_ids=[tuple(ids) for ids in column(5, ())],
        block_size=config["block_size"],
    )

    def policy():
        kv = (PrefixCachedKV if config["prefix_caching"] else PagedKV)(
            config["num_blocks"], config["block_size"]
        )
        return VllmPolicy(
            kv,
            config["max_num_seqs"],
            config["max_num_batched_tokens"],
            config["max_model_len"],
            chunked_prefill=config["chunked_prefill"],
            long_prefill_token_threshold=config["long_prefill_token_threshold"],
            queue=config["policy"],
            watermark=config["watermark"],
            reserve_full_prompt=config["reserve_full_isl"],
        )

    latency = case["latency"]
    step_time = LinearStepTime(
        base_s=latency["base"],
        per_token_s=latency["per_token"],
        per_context_s=latency["per_context"],
    )
    return trace, policy, step_time, expected, order


@pytest.mark.parametrize("step_by_step", [False, True], ids=["jumps", "steps"])
@pytest.mark.parametrize("path", cases(), ids=lambda path: path.stem)
def test_requests_are_answered_when_vllm_answers_them(path, step_by_step):
    trace, policy, step_time, expected, order = load(path)
    policy = policy()
    requests = simulate(trace, policy, step_time, lookahead=0, step_by_step=step_by_step).requests
    first_token_s, finish_s, preemptions = np.array([expected["requests"][row] for row in order]).T
    assert requests["num_preemptions"].tolist() == preemptions.tolist()
    np.testing.assert_allclose(requests["first_token_s"], first_token_s, rtol=1e-9)
    np.testing.assert_allclose(requests["finish_s"], finish_s, rtol=1e-9)
    assert policy.kv.num_free_blocks == policy.kv.num_blocks


@pytest.mark.parametrize("path", cases(), ids=lambda path: path.stem)
def test_every_iteration_holds_vllms_batch(path):
    trace, policy, step_time, expected, order = load(path)
    policy = policy()
    seen = []

    class Log:
        def begin(self, batch, now_s):
            tokens = {request.request_id: num_tokens for request, num_tokens in policy.items(batch)}
            seen.append((now_s, tokens, sorted(request.request_id for request in batch.preempted)))

        def end(self, *args): ...

        def left(self, *args): ...

    env = simpy.Environment()
    clients = Clients(env, trace, kv_block_size=policy.kv.block_size)
    clients.start(
        Server(env, policy, step_time, step_by_step=True, recorder=Log(), on_leave=clients.left)
    )
    env.run()

    place = {row: i for i, row in enumerate(order)}
    assert len(seen) == len(expected["iterations"])
    for (now_s, tokens, preempted), (start_s, _, items, out) in zip(
        seen, expected["iterations"], strict=True
    ):
        assert now_s == pytest.approx(start_s, rel=1e-9)
        assert tokens == {place[row]: num_tokens for row, num_tokens in items}
        assert preempted == sorted(place[row] for row in out)
