"""The triton backend gives the torch backend's tokens: in the interpreter, on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import busdoor_gpu.replay.replay  # noqa: E402
from busdoor.kv.contiguous import ContiguousKV  # noqa: E402
from busdoor.kv.paged import PagedKV  # noqa: E402
from busdoor.policies.vllm import VllmPolicy  # noqa: E402
from busdoor_gpu.engine.backend import load_backend  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.engine.graphs import StepGraphs, graph_sizes, mixed_graph_sizes  # noqa: E402
from busdoor_gpu.engine.kv_memory import block_bytes, measure_num_blocks  # noqa: E402
from busdoor_gpu.engine.model import load_model  # noqa: E402
from busdoor_gpu.engine.model_config import TINY, ModelConfig  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402
from busdoor_workloads import Trace  # noqa: E402

ROOT = Path(__file__).parents[3]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def outputs_of(trace, policy, model, backend, **options):
    return replay(trace, policy, model, load_backend(backend), keep_outputs=True, **options).meta[
        "outputs"
    ]


@pytest.mark.skipif(INTERPRETED, reason="already interpreting")
def test_the_engine_runs_on_the_kernels_in_the_interpreter():
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    paths = ":".join(str(ROOT / part) for part in ("sim", "workloads", "gpu"))
    test = f"{Path(__file__)}::test_both_backends_and_padded_steps_give_the_same_tokens"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    env["PYTHONPATH"] = paths
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout


@pytest.mark.skipif(not INTERPRETED, reason="runs in the process of the test above")
@pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)  # the interpreter's loop bounds
@pytest.mark.parametrize("name", ["vllm chunked", "static skipping"])
def test_both_backends_and_padded_steps_give_the_same_tokens(name, policies, monkeypatch):
    """One layer and a few tokens: the interpreter is slow."""
    trace = Trace(arrival_s=[0, 0, 0], input_tokens=[9, 3, 5], output_tokens=[2, 4, 3])
    model = load_model(ModelConfig(replace(TINY["tiny-qwen3"], num_hidden_layers=1)), "cpu")
    runs = [
        outputs_of(trace, policies[name](), model, backend, clock="cpu")
        for backend in ("triton", "torch")
    ]
    monkeypatch.setattr(
        StepGraphs, "_capture", lambda self, key, call: self._graphs.update({key: Replayed(call)})
    )
    monkeypatch.setattr(busdoor_gpu.replay.replay, "Engine", Padded)
    padded = outputs_of(trace, policies[name](), model, "triton", clock="cpu")
    assert padded == runs[0] == runs[1]


class Replayed(NamedTuple):
    """A graph that was not captured: a replay calls it."""

    replay: Callable[[], None]


class Padded(Engine):
    """Runs every step in the buffers of a graph."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.launcher.capture()


@pytest.fixture
def half_model():
    """What the kernels are written for: heads of 64, in half precision."""
    shape = replace(TINY["tiny-llama"], head_dim=64, vocab_size=1000)
    return load_model(ModelConfig(shape), "cuda", torch.float16)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("name", ["vllm", "vllm preempting", "static"])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_eager_steps_and_the_references_agree(
    name, lookahead, policies, half_model, new_trace
):
    """But for near ties: padding or a kernel sums in another order; half precision shows."""
    trace = replace(new_trace(num_requests=12, spread_s=0.0), hash_ids=None)
    runs = [
        outputs_of(
            trace,
            in_blocks_of_16(policies[name]),
            half_model,
            backend,
            cuda_graphs=graphs,
            lookahead=lookahead,
        )
        for backend, graphs in (("torch", False), ("triton", False), ("triton", True))
    ]
    for run in runs[1:]:
        assert sum(run[row] == runs[0][row] for row in range(12)) >= 9


def in_blocks_of_16(new_policy):
    """The policy, with the blocks that the kernels are written for."""
    policy = new_policy()
    if isinstance(policy, VllmPolicy):
        return VllmPolicy(
            PagedKV(policy.kv.num_blocks // 2, 16),
            4,
            policy.max_num_batched_tokens,
            policy.max_model_len,
        )
    policy.kv = ContiguousKV(policy.kv.num_tokens, 16)
    return policy


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_measured_memory_is_what_can_be_allocated(half_model):
    blocks = measure_num_blocks(half_model, load_backend("triton"), 16, 2048, 0.5)
    total = torch.cuda.mem_get_info()[1]
    assert 0.3 * total < blocks * block_bytes(half_model, 16) < 0.5 * total
    torch.empty(blocks * block_bytes(half_model, 16), dtype=torch.uint8, device="cuda")


def test_graph_sizes_end_at_the_largest_batch_and_hold_every_smaller_one():
    for most in (1, 3, 8, 100, 256, 300, 1024):
        sizes = graph_sizes(most)
        assert sizes[-1] == most
        assert sizes == sorted(set(sizes))


def test_mixed_graphs_hold_a_token_budget_and_no_step_above_the_largest():
    for budget in (1, 32, 33, 500, 512, 2048):
        sizes = mixed_graph_sizes(budget)
        assert sizes[-1] >= budget and all(size < budget for size in sizes[:-1])
    assert mixed_graph_sizes(8192) == mixed_graph_sizes(None) == mixed_graph_sizes(2048)
