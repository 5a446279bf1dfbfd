"""What engine tests share: tiny models, policies under pressure, a pageless generator."""

from __future__ import annotations

import numpy as np
import pytest

from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies.dynamic import DynamicPolicy
from busdoor.policies.orca import OrcaPolicy
from busdoor.policies.prefill_first import PrefillFirstPolicy
from busdoor.policies.static import StaticPolicy
from busdoor.policies.vllm import VllmPolicy
from busdoor_workloads import Trace

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from busdoor_gpu.engine.backend import load_backend  # noqa: E402
from busdoor_gpu.engine.model import load_model  # noqa: E402
from busdoor_gpu.engine.prompts import prompt_tokens  # noqa: E402
from busdoor_gpu.kernels.rope_kv_write import _rotate  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402

LIMITS = {"max_num_seqs": 4, "max_model_len": 96}
TIGHT, AMPLE = (
    20,
    200,
)  # blocks of 4 tokens: 4 requests of up to 96 tokens fit the one, not the other

POLICIES = {
    "vllm": lambda: VllmPolicy(PagedKV(AMPLE, 4), **LIMITS, max_num_batched_tokens=256),
    "vllm chunked": lambda: VllmPolicy(PagedKV(AMPLE, 4), **LIMITS, max_num_batched_tokens=7),
    "vllm preempting": lambda: VllmPolicy(PagedKV(TIGHT, 4), **LIMITS, max_num_batched_tokens=16),
    "vllm prefix cache": lambda: VllmPolicy(
        PrefixCachedKV(AMPLE, 4), **LIMITS, max_num_batched_tokens=16
    ),
    "vllm tight prefix cache": lambda: VllmPolicy(
        PrefixCachedKV(TIGHT, 4), **LIMITS, max_num_batched_tokens=16
    ),
    "vllm priority": lambda: VllmPolicy(
        PagedKV(TIGHT, 4), **LIMITS, max_num_batched_tokens=16, queue="priority"
    ),
    "prefill_first": lambda: PrefillFirstPolicy(
        PagedKV(TIGHT, 4), **LIMITS, max_num_batched_tokens=16
    ),
    "orca": lambda: OrcaPolicy(ContiguousKV(4 * AMPLE, 4), **LIMITS, reservation="pow2"),
    "orca fragmented": lambda: OrcaPolicy(
        ContiguousKV(4 * TIGHT + 3, 4), **LIMITS, reservation="oracle"
    ),
    "static": lambda: StaticPolicy(
        ContiguousKV(4 * AMPLE, 4), batch_size=4, max_model_len=96, decode_reads="own"
    ),
    "static skipping": lambda: StaticPolicy(
        ContiguousKV(4 * AMPLE, 4),
        batch_size=3,
        max_model_len=96,
        decode_reads="own",
        finished_rows="skip",
        release="request",
    ),
    "static dataset": lambda: StaticPolicy(
        ContiguousKV(4 * AMPLE, 4),
        batch_size=4,
        max_model_len=96,
        decode_reads="own",
        pad_input_tokens=60,
        pad_output_tokens=40,
    ),
    "dynamic": lambda: DynamicPolicy(
        ContiguousKV(4 * AMPLE, 4),
        batch_size=3,
        max_model_len=96,
        decode_reads="own",
        max_wait_s=0.001,
        sort_window=6,
    ),
}


def make_trace(num_requests: int = 9, seed: int = 0, spread_s: float = 0.01) -> Trace:
    """Requests of all lengths from one token, over some iterations; some share beginnings."""
    draw = np.random.default_rng(seed)
    inputs, outputs = draw.integers(1, 50, num_requests), draw.integers(1, 20, num_requests)
    families = draw.integers(0, 3, num_requests)
    return Trace(
        arrival_s=np.sort(draw.uniform(0, spread_s, num_requests)),
        input_tokens=inputs,
        output_tokens=outputs,
        priority=draw.integers(0, 3, num_requests),
        hash_ids=[
            tuple(100 * int(f) + i for i in range(n // 4))
            for f, n in zip(families, inputs, strict=True)
        ],
        block_size=4,
    )


def generate_alone(model, prompt: list[int], num_tokens: int) -> list[int]:
    """Greedy tokens of a request, all computed anew per token: no cache, pages or batch."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(int(_logits(model, torch.tensor(tokens))[-1].argmax()))
    return tokens


def _logits(model, tokens):
    shape, eps, weights = model.config.shape, model.config.rms_norm_eps, model.weights
    cos, sin = model.rope[: len(tokens), None].chunk(2, dim=-1)
    x = weights.embedding[tokens]
    for layer in weights.layers:
        qkv = _norm(x, layer.input_norm, eps) @ layer.qkv.T
        qkv = (qkv if layer.qkv_bias is None else qkv + layer.qkv_bias).view(
            len(tokens), -1, shape.head_dim
        )
        q, k, v = qkv.split([shape.num_attention_heads, *[shape.num_key_value_heads] * 2], dim=1)
        if layer.head_norm:
            q, k = _norm(q, layer.head_norm.q_weight, eps), _norm(k, layer.head_norm.k_weight, eps)
        q, k, v = (t.transpose(0, 1)[None] for t in (_rotate(q, cos, sin), _rotate(k, cos, sin), v))
        attended = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )
        x = x + attended[0].transpose(0, 1).flatten(1) @ layer.attention_out.T
        gate, up = (_norm(x, layer.mlp_norm, eps) @ layer.gate_up.T).chunk(2, dim=-1)
        x = x + (torch.nn.functional.silu(gate) * up) @ layer.down.T
    return _norm(x, weights.norm, eps) @ weights.lm_head.T


def _norm(x, weight, eps):
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


@pytest.fixture(scope="session")
def models():
    """The families, tiny, in float32."""
    return {name: load_model(name, "cpu") for name in ("tiny-llama", "tiny-qwen2", "tiny-qwen3")}


@pytest.fixture(scope="session")
def torch_backend():
    """The reference backend."""
    return load_backend("torch")


@pytest.fixture(scope="session")
def alone(models):
    """Tokens of a trace's row, generated alone; each once."""
    known = {}

    def generate(family: str, trace: Trace, row: int, block_size: int = 4) -> list[int]:
        inputs, outputs = int(trace.input_tokens[row]), int(trace.output_tokens[row])
        request = Request(
            row,
            0.0,
            inputs,
            outputs,
            hash_ids=() if trace.hash_ids is None else trace.hash_ids[row],
        )
        prompt = prompt_tokens(request, block_size, models[family].config.shape.vocab_size).tolist()
        key = (family, *prompt, -outputs)
        if key not in known:
            known[key] = generate_alone(models[family], prompt, outputs)
        return known[key]

    return generate


@pytest.fixture(scope="session")
def policies():
    """Every policy by what it is put through, each call a fresh one."""
    return POLICIES


@pytest.fixture(
    scope="session",
    params=[(name, lookahead) for name in POLICIES for lookahead in (0, 1)],
    ids=str,
)
def run(request, models, torch_backend):
    """A trace replayed under each policy: trace, policy's maker, lookahead and result."""
    name, lookahead = request.param
    trace = make_trace()
    result = replay(
        trace,
        POLICIES[name](),
        models["tiny-llama"],
        torch_backend,
        lookahead=lookahead,
        clock="cpu",
        keep_outputs=True,
    )
    return trace, POLICIES[name], lookahead, result


@pytest.fixture(scope="session")
def new_trace():
    """See `make_trace`."""
    return make_trace
