"""What fits: KV blocks as vLLM reports, its defaults, advice on models that do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.catalog import (
    default_max_num_batched_tokens,
    default_max_num_seqs,
    gpu,
    gpu_names,
    kv_capacity,
    memory_plan,
    model,
    model_names,
)
from busdoor.catalog.dtypes import BYTES_PER_VALUE

# KV tokens that vLLM reported on an "NVIDIA H100 NVL" (93.0 GiB) with max_num_seqs 1024 and
# max_num_batched_tokens 4096 (a public capacity table); one constant of the working space was
# fitted to these four.
H100_NVL = {"llama-3.1-8b": 542_960, "qwen3-8b": 478_560, "qwen3-14b": 350_304, "qwen3-32b": 81_648}


@pytest.mark.parametrize("name", H100_NVL)
def test_kv_capacity_matches_what_vllm_reports(name):
    nvl = gpu({"name": "h100", "memory_gib": 93.0})
    limits = {"max_num_seqs": 1024, "max_num_batched_tokens": 4096, "gpu_memory_utilization": 0.9}
    blocks = kv_capacity(nvl, name, **limits)
    assert blocks * 16 == pytest.approx(H100_NVL[name], rel=0.005)


def test_kv_capacity_matches_an_older_vllm_on_an_a100():
    limits = {"max_num_seqs": 256, "max_num_batched_tokens": 4096, "gpu_memory_utilization": 0.9}
    blocks = kv_capacity("a100-80gb", "llama-2-7b", **limits)
    assert blocks == pytest.approx(7351, rel=0.015)  # vllm PR 2031


QWEN3_235B = {
    "name": "qwen3-235b-a22b",
    "num_hidden_layers": 94,
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 1536,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "qk_norm": True,
}


def test_a_mixture_of_experts_leaves_the_kv_tokens_that_vllm_reports():
    """Qwen3-235B-A22B-FP8 on 4 H100, vLLM's defaults: 178,880 tokens (vllm issue 21348)."""
    blocks = kv_capacity(
        "h100", QWEN3_235B, weight_dtype="fp8", tp=4, gpu_memory_utilization=0.9, vllm="0.9"
    )
    assert blocks * 16 == pytest.approx(178_880, rel=0.02)


def test_the_working_space_of_experts_grows_with_top_k_and_the_budget():
    def reserve(budget=8192, **fields):
        return memory_plan(
            "h200", QWEN3_235B | fields, tp=4, max_num_batched_tokens=budget
        ).reserve_bytes

    dense = {"num_experts": 1, "num_experts_per_tok": 1}
    rows = [reserve(num_experts_per_tok=k) - reserve(**dense) for k in (1, 2, 8)]
    assert rows == pytest.approx([rows[0], 2 * rows[0], 8 * rows[0]])
    assert reserve(budget=4096) - reserve(budget=4096, **dense) == pytest.approx(4 * rows[0])


def test_opt_13b_on_an_a100_40gb_has_the_vllm_papers_slots():
    # The paper gives 15.7K slots, not the utilisation: its first release's limits, at 0.9 and 0.95,
    # lie on both sides.
    limits = {"max_num_seqs": 256, "max_num_batched_tokens": 2560, "weight_dtype": "fp16"}
    slots = [
        16 * kv_capacity("a100-40gb", "opt-13b", gpu_memory_utilization=u, **limits)
        for u in (0.9, 0.95)
    ]
    assert slots[0] < 15_700 < slots[1]
    assert slots == pytest.approx([15_700, 15_700], rel=0.1)


def test_vllms_defaults_follow_the_gpu():
    assert (default_max_num_batched_tokens(gpu("h100")), default_max_num_seqs(gpu("h100"))) == (
        8192,
        1024,
    )
    assert (default_max_num_batched_tokens(gpu("a100")), default_max_num_seqs(gpu("a100"))) == (
        2048,
        256,
    )
    assert [default_max_num_batched_tokens(gpu(name)) for name in ("b200", "mi300x", "h200")] == [
        16384,
        16384,
        8192,
    ]
    assert default_max_num_batched_tokens(gpu("b200"), offline=True) == 16384
    assert default_max_num_batched_tokens(gpu("h200"), offline=True) == 16384
    assert default_max_num_batched_tokens(gpu("l40s"), offline=True) == 8192


@pytest.mark.parametrize(
    ("card", "name", "options", "way_out"),
    [
        ("h100", "llama-3.1-70b", {}, "use tp = 2 or weight_dtype = 'fp8'"),
        ("rtx-4090", "llama-3.1-70b", {}, "use tp = 8$"),
        ("rtx-4090", "opt-13b", {}, "use tp = 2 or weight_dtype = 'fp8'"),
        ("rtx-4090", "qwen3-32b", {"weight_dtype": "fp8"}, "use tp = 2 or weight_dtype = 'int4'"),
    ],
)
def test_a_model_that_does_not_fit_says_what_would(card, name, options, way_out):
    with pytest.raises(ValueError, match=way_out) as error:
        kv_capacity(card, name, **options)
    assert "\n" not in str(error.value)
    assert f"{memory_plan(card, name, **options).weight_bytes / 2**30:.1f} GiB" in str(error.value)


def test_a_tp_that_does_not_divide_the_heads_is_refused():
    with pytest.raises(
        ValueError, match=r"tp = 3 cannot share out llama-3.1-8b's 32 query and 8 KV heads"
    ):
        kv_capacity("h100", "llama-3.1-8b", tp=3)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_utilisation_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="gpu_memory_utilization"):
        kv_capacity("h100", "llama-3.1-8b", gpu_memory_utilization=share)


@given(
    card=st.sampled_from(gpu_names()),
    name=st.sampled_from(model_names()),
    weight_dtype=st.sampled_from(list(BYTES_PER_VALUE)),
    kv_dtype=st.sampled_from([None, *BYTES_PER_VALUE]),
    tp=st.sampled_from([1, 2, 4, 8]),
    block_size=st.sampled_from([8, 16, 32]),
    share=st.floats(0.3, 1.0),
)
def test_weights_reserve_and_blocks_fill_the_share_and_no_more(
    card, name, weight_dtype, kv_dtype, tp, block_size, share
):
    shape = model(name)
    if shape.num_attention_heads % tp or (
        shape.num_key_value_heads % tp and tp % shape.num_key_value_heads
    ):
        return
    plan = memory_plan(
        card,
        name,
        gpu_memory_utilization=share,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
        tp=tp,
        block_size=block_size,
    )
    taken = plan.weight_bytes + plan.reserve_bytes + plan.num_blocks * plan.block_bytes
    assert taken <= plan.usable_bytes < taken + plan.block_bytes
    assert plan.usable_bytes <= gpu(card).memory_bytes
