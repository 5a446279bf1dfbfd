"""The engine answers each request as it would be alone, whatever the policy does."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

import busdoor_gpu.replay.replay  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402


def serve(trace, policy, model, backend):
    result = replay(trace, policy, model, backend, clock="cpu", keep_outputs=True)
    assert (result.requests["status"] == "finished").all()
    return result


def test_every_policy_answers_each_request_as_if_it_were_alone(run, alone):
    trace, _, _, result = run
    assert (result.requests["status"] == "finished").all()
    for row in range(len(trace)):
        assert result.meta["outputs"][row] == alone("tiny-llama", trace, row), f"request {row}"


@pytest.mark.parametrize("family", ["tiny-qwen2", "tiny-qwen3"])
@pytest.mark.parametrize("name", ["vllm preempting", "static"])
def test_so_does_a_model_with_biases_or_norms_on_queries_and_keys(
    name, family, policies, models, torch_backend, new_trace, alone
):
    trace = new_trace(seed=1)
    outputs = serve(trace, policies[name](), models[family], torch_backend).meta["outputs"]
    for row in range(len(trace)):
        assert outputs[row] == alone(family, trace, row), f"request {row}"


def test_the_policies_are_put_through_what_their_names_say(
    policies, models, torch_backend, new_trace
):
    trace = new_trace(spread_s=0.0)
    runs = {
        name: serve(trace, policies[name](), models["tiny-llama"], torch_backend)
        for name in ("vllm preempting", "vllm chunked", "vllm prefix cache", "static")
    }
    assert runs["vllm preempting"].requests["num_preemptions"].sum() > 0
    assert (
        runs["vllm chunked"].iterations["num_prefill_tokens"].max() <= 7 < trace.input_tokens.max()
    )
    assert runs["vllm prefix cache"].requests["cached_tokens"].sum() > 0
    assert runs["static"].iterations["num_idle_rows"].sum() > 0


class PoisoningEngine(Engine):
    """Fills every block no request holds with NaN before each step; counts which is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.held, self.given = {}, Counter()
        PoisoningEngine.last = self

    def _run(self, step):
        for _, slot, _ in step.left:
            del self.held[slot]
        for _, slot, _, _ in step.entered:
            self.held[slot] = set()
        for slot, _, block in step.blocks:
            self.held[slot].add(block)
            self.given[block] += 1
        unused = torch.ones(self.num_blocks, dtype=torch.bool)
        unused[sorted(set().union(*self.held.values()))] = False
        for cache in self.caches:
            for part in cache:
                part[unused] = torch.nan
        super()._run(step)


@pytest.mark.parametrize("name", ["vllm preempting", "orca fragmented", "static"])
def test_poison_in_pages_that_no_request_holds_reaches_no_answer(
    name, policies, models, torch_backend, new_trace, alone, monkeypatch
):
    monkeypatch.setattr(busdoor_gpu.replay.replay, "Engine", PoisoningEngine)
    trace = new_trace(num_requests=8)
    outputs = serve(trace, policies[name](), models["tiny-llama"], torch_backend).meta["outputs"]
    for row in range(len(trace)):
        assert outputs[row] == alone("tiny-llama", trace, row), f"request {row}"
    engine = PoisoningEngine.last
    assert max(engine.given) < engine.num_blocks
    assert max(engine.given.values()) > 1, "freed blocks are used again"


def test_a_static_batch_lies_in_memory_as_one_padded_rectangle(
    policies, models, torch_backend, new_trace, monkeypatch
):
    monkeypatch.setattr(busdoor_gpu.replay.replay, "Engine", PoisoningEngine)
    trace = new_trace(num_requests=4, spread_s=0.0)
    serve(trace, policies["static"](), models["tiny-llama"], torch_backend)
    longest_input, longest_output = int(trace.input_tokens.max()), int(trace.output_tokens.max())
    longest_cap = 96 - int(
        trace.input_tokens.min()
    )  # clients named none: all that max_model_len leaves
    width = -(-(longest_input + longest_cap - 1) // 4)
    for row, inputs in enumerate(trace.input_tokens.tolist()):
        used = -(-max(longest_input, inputs + longest_output - 1) // 4)
        blocks = PoisoningEngine.last.table.block_table[row, :used].tolist()
        assert blocks == list(range(row * width, row * width + used))


def test_a_long_step_runs_in_several_passes_with_the_same_answers(
    policies, models, torch_backend, new_trace, alone, monkeypatch
):
    monkeypatch.setattr("busdoor_gpu.engine.passes.PASS_TOKENS", 20)
    trace = new_trace(num_requests=6)
    outputs = serve(trace, policies["static"](), models["tiny-llama"], torch_backend).meta[
        "outputs"
    ]
    assert all(outputs[row] == alone("tiny-llama", trace, row) for row in range(6))
