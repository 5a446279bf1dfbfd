"""What goes wrong is one sentence, and what was measured so far is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from busdoor.policies.vllm import VllmPolicy  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.engine.slots import EngineError  # noqa: E402
from busdoor_gpu.replay.replay import ReplayError, replay  # noqa: E402
from busdoor_workloads import Trace  # noqa: E402


def fail_after(num_steps, error, monkeypatch):
    run, left = Engine._run, iter(range(num_steps))

    def failing(self, step):
        if next(left, None) is None:
            raise error
        run(self, step)

    monkeypatch.setattr(Engine, "_run", failing)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 ..."),
            "memory is full .*num_blocks",
        ),
        (
            RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors ..."),
            "the GPU failed .CUDA error",
        ),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_device_that_fails_leaves_what_was_measured(
    error, sentence, policies, models, torch_backend, new_trace, monkeypatch
):
    fail_after(25, error, monkeypatch)
    with pytest.raises(ReplayError, match=sentence) as caught:
        replay(
            new_trace(spread_s=0.0),
            policies["vllm"](),
            models["tiny-llama"],
            torch_backend,
            clock="cpu",
        )
    assert "\n" not in str(caught.value)
    result = caught.value.result
    assert len(result.iterations) == 25
    assert set(result.requests["status"]) == {"finished", "unfinished"}
    assert result.meta["error"] == str(caught.value)


class Deaf(VllmPolicy):
    def schedule(self, now_s):
        return None if self.num_waiting >= 2 else super().schedule(now_s)


class Restless(Deaf):
    def next_wakeup_s(self):
        return 0.0


@pytest.mark.parametrize("cls", [Deaf, Restless])
def test_a_policy_that_schedules_nothing_while_requests_wait(
    cls, models, torch_backend, new_trace, policies
):
    policy = policies["vllm"]()
    policy.__class__ = cls
    with pytest.raises(
        ReplayError,
        match=f"{cls.__name__} schedules nothing while 9 requests wait and 0 hold a slot",
    ):
        replay(new_trace(spread_s=0.0), policy, models["tiny-llama"], torch_backend, clock="cpu")


def test_a_request_that_is_too_long_is_refused_and_the_others_are_served(
    policies, models, torch_backend
):
    trace = Trace(arrival_s=[0, 0], input_tokens=[96, 10], output_tokens=[1, 2])
    result = replay(trace, policies["vllm"](), models["tiny-llama"], torch_backend, clock="cpu")
    assert result.requests["status"].tolist() == [
        "refused: 97 tokens exceed max_model_len 96",
        "finished",
    ]


def test_a_request_longer_than_the_models_positions(models, torch_backend):
    from busdoor.kv.paged import PagedKV

    policy = VllmPolicy(
        PagedKV(2000, 16), max_num_seqs=2, max_num_batched_tokens=64, max_model_len=8192
    )
    trace = Trace(arrival_s=[0], input_tokens=[5000], output_tokens=[1])
    with pytest.raises(
        EngineError, match="rows of 5001 tokens exceed tiny-llama's max_position_embeddings 4096"
    ):
        replay(trace, policy, models["tiny-llama"], torch_backend, clock="cpu")


def test_a_policy_that_loses_count_is_found_out(policies, models, torch_backend, new_trace):
    policy = policies["vllm chunked"]()
    schedule = policy.schedule

    def forgetful(now_s):
        batch = schedule(now_s)
        if batch and batch.chunks and batch.chunks[0].context_tokens:
            batch.chunks[0].context_tokens = 1
        return batch

    policy.schedule = forgetful
    with pytest.raises(ReplayError, match="has 7 tokens in the cache; VllmPolicy takes it for 1"):
        replay(new_trace(), policy, models["tiny-llama"], torch_backend, clock="cpu")


def test_importing_neither_busdoor_nor_the_engine_touches_a_gpu():
    code = (
        "import sys, busdoor.simulator.simulate, busdoor.policies\n"
        "assert 'torch' not in sys.modules\n"
        "import torch, busdoor_gpu.replay.replay, busdoor_gpu.engine.graphs, "
        "busdoor_gpu.cli.replay\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
