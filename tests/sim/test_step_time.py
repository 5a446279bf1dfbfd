"""Step-time models: the formulas, and what they promise the simulator."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.step_time import CalibratedStepTime, LinearStepTime, make_step_time
from busdoor.step_time.terms import TERMS, Work

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden" / "vllm_v1"

chunk = st.tuples(st.integers(1, 4096), st.integers(0, 4096))
contexts = st.lists(st.integers(1, 20_000), max_size=50)
seconds = st.floats(0, 1)


def make_batch(chunks=(), decodes=(), idle_rows=0, padding=0):
    """Chunks (n, c), decodes by context, and finished rows still running, 7 tokens each."""
    batch = Batch()
    for n, c in chunks:
        batch.add_chunk(Request(0, 0.0, 10_000, 1), n, c)
    batch.num_decode_tokens = len(decodes)
    batch.num_idle_rows = idle_rows
    batch.num_padded_tokens = padding + idle_rows
    batch.decode_context_tokens = sum(decodes) + 7 * idle_rows
    return batch


# -- linear
# ---------------------------------------------------------------------------------------------------------


@given(
    seconds,
    seconds,
    seconds,
    seconds,
    st.lists(chunk, max_size=5),
    contexts,
    st.integers(0, 5),
    st.integers(1, 9),
)
def test_linear_is_the_golden_formula(
    base, token, context, request_s, chunks, decodes, idle, repeat
):
    assume(
        any((base, token, context, request_s))
    )  # else it is refused: an iteration would take no time
    model = LinearStepTime(base, token, context, request_s)
    durations = model.durations_s(make_batch(chunks, decodes, idle), repeat)
    for step, duration_s in enumerate(durations):
        rows = [*chunks, *[(1, c + step) for c in decodes], *[(1, 7 + step)] * idle]
        expected = base + request_s * len(rows)
        expected += sum(token * n + context * n * (c + (n + 1) / 2) for n, c in rows)
        assert duration_s == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden cases of shared/ are not at hand")
@pytest.mark.parametrize("case", ["ample", "tight_kv", "priority", "whole_prefill"])
def test_linear_gives_the_durations_that_the_golden_cases_ran(case):
    latency = json.loads((GOLDEN / f"{case}.json").read_text())["latency"]
    model = make_step_time(
        "linear", **{f"{name}_s": seconds_s for name, seconds_s in latency.items()}
    )
    computed = Counter()
    for _, duration_s, scheduled, preempted in json.loads(
        (GOLDEN / f"{case}.out.json").read_text()
    )["iterations"]:
        for request in preempted:
            computed[request] = 0
        batch = make_batch([(n, computed[request]) for request, n in scheduled])
        assert model.duration_s(batch) == pytest.approx(duration_s, rel=1e-9)
        computed.update(dict(scheduled))


@pytest.mark.parametrize("parameter", ["base_s", "per_token_s", "per_context_s", "per_request_s"])
def test_linear_refuses_negative_seconds_in_one_sentence(parameter):
    with pytest.raises(
        ValueError, match=rf"^\[step_time\] {parameter} = -0.5: input should be"
    ) as error:
        make_step_time("linear", **{"base_s": 1.0, parameter: -0.5})
    assert "\n" not in str(error.value)


# -- roofline
# -------------------------------------------------------------------------------------------------------

rooflines = st.sampled_from(
    [
        make_step_time("roofline", gpu=gpu, model=model, **options)
        for gpu, model, options in [
            ("h100", "llama-3.1-8b", {}),
            ("h100", "mixtral-8x7b", {"tp": 2}),
            ("l40s", "opt-13b", {"weight_dtype": "fp16"}),
            ("a100-40gb", "qwen3-32b", {"weight_dtype": "int4", "kv_dtype": "fp8"}),
            ("rtx-4090", "qwen3-0.6b", {"kv_dtype": "int8"}),
            ("mi300x", "llama-3.1-70b", {"weight_dtype": "fp8", "tp": 4}),
            ("b200", "llama-2-7b", {"step_overhead_s": 0.0, "gemm_efficiency": 1.0}),
        ]
    ]
)
batches = st.builds(
    make_batch, st.lists(chunk, max_size=5), contexts, st.integers(0, 5), st.integers(0, 3000)
).filter(lambda batch: batch.num_requests)


def brute_force_s(model, chunks, decodes, padding=0):
    """Seconds of an iteration from shape and datasheet: every part, layer and request."""
    m, g, tp = model.model, model.gpu, model.tp
    width = {"bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "int4": 0.51953125}
    w, kv = width[model.weight_dtype], width[model.kv_dtype or "bf16"]
    bandwidth = g.bandwidth_bytes_per_s * (model.memory_efficiency or g.memory_efficiency)
    kv_bandwidth = g.bandwidth_bytes_per_s * (model.kv_efficiency or g.kv_efficiency)
    gemm = model.gemm_efficiency or g.gemm_efficiency
    fast = model.weight_dtype if model.weight_dtype in g.flop_per_s else "bf16"
    rate, rate16 = g.flop_per_s[fast] * gemm, g.flop_per_s["bf16"] * gemm
    q, k = m.num_attention_heads * m.head_dim, m.num_key_value_heads * m.head_dim
    matrices = 3 if m.mlp == "gated" else 2
    tokens = sum(n for n, _ in chunks) + len(decodes) + padding
    requests = len(chunks) + len(decodes)

    def gemm_s(parameters, bytes_each, rows, flops):
        read_s = parameters * bytes_each / tp / bandwidth
        wasted = min(rows, 64, 64 * 256 / max(rows, 1))
        return max(
            read_s,
            2 * parameters * (rows + wasted) / tp / flops * (0.92 + 0.3 * rows / (rows + 8192)),
        )

    def experts_s(parameters, bytes_each, rows, flops, read):
        read_s = read * parameters * bytes_each / tp / bandwidth
        return max(read_s, 2 * parameters * (rows + min(rows, 64 * read)) / tp / flops)

    step_s, request_s = model.engine.host_s(tp)
    total = (
        step_s if model.step_overhead_s is None else model.step_overhead_s
    ) + requests * request_s
    total += gemm_s(m.vocab_size * m.hidden_size, 2, requests, rate16)
    total += gemm_s(m.dense_parameters, w, tokens, rate)
    if m.num_experts > 1:
        expert = 3 * m.hidden_size * m.intermediate_size * m.num_hidden_layers
        read = m.num_experts * (1 - (1 - m.num_experts_per_tok / m.num_experts) ** tokens)
        total += experts_s(expert, w, tokens * m.num_experts_per_tok, rate, read)
    kv_token = 2 * max(1, m.num_key_value_heads // tp) * m.head_dim * kv
    pair_flop_s = rate16 / gemm * model.attention_efficiency
    if m.num_experts > 1:  # fused experts, router and top-k, but not an MLP's three kernels
        total += m.num_hidden_layers * (g.experts_s - 3.2e-6)
    for _ in range(m.num_hidden_layers):
        total += g.layer_s
        moved = (
            8 * m.hidden_size
            + (2 * (q + 2 * k) + matrices * m.intermediate_size * m.num_experts_per_tok) / tp
        )
        total += tokens * moved * 2 / bandwidth
        total += max(
            sum((c + n) * kv_token for n, c in chunks) / kv_bandwidth,
            sum(4 * q / tp * n * (c + (n + 1) / 2) for n, c in chunks) / pair_flop_s,
        )
        total += max(
            sum((c + 1) * kv_token for c in decodes) / kv_bandwidth,
            sum(4 * q / tp * (c + 1) for c in decodes) / pair_flop_s,
        )
        if tp > 1:
            ring_s = (
                tokens * m.hidden_size * 2 * 2 * (tp - 1) / tp / (g.link_bytes_per_s * 0.8)
            )  # all NVLink
            total += 2 * (9e-6 + ring_s)
    return total


@given(rooflines, st.lists(chunk, max_size=4), contexts, st.integers(0, 300), st.integers(1, 5))
def test_roofline_is_the_brute_force_sum_of_its_parts(model, chunks, decodes, padding, repeat):
    if not (chunks or decodes):
        return
    durations = model.durations_s(make_batch(chunks, decodes, 0, padding), repeat)
    for step in range(repeat):
        expected = brute_force_s(model, chunks, [c + step for c in decodes], padding)
        assert durations[step] == pytest.approx(expected, rel=1e-9)


@given(rooflines, batches, st.integers(1, 300))
def test_the_line_is_what_the_parts_sum_to(model, batch, repeat):
    first_s, growth_s = model.line(batch)
    np.testing.assert_allclose(
        first_s + growth_s * np.arange(repeat), model.durations_s(batch, repeat), rtol=1e-12, atol=0
    )
    assert growth_s >= 0
    assert model.duration_s(batch) == first_s


@given(rooflines, batches, st.integers(1, 100))
def test_no_batch_is_faster_than_the_weights_can_be_read(model, batch, more):
    shape = model.model
    read_bytes = 2 * shape.dense_parameters if model.weight_dtype in ("bf16", "fp16") else 0
    assert model.duration_s(batch) > read_bytes / model.tp / model.gpu.bandwidth_bytes_per_s
    batch.num_padded_tokens += more
    padded_s = model.duration_s(batch)
    batch.num_padded_tokens -= more
    assert padded_s > model.duration_s(batch)


def test_a_mixture_reads_more_experts_as_the_batch_grows():
    model = make_step_time("roofline", gpu="h100", model="mixtral-8x7b", tp=2)
    experts_ms = [
        1e3 * model.parts_s(make_batch(decodes=[0] * n), 1)["experts"][0] for n in (1, 4, 16, 64)
    ]
    assert experts_ms == sorted(experts_ms)
    assert experts_ms[0] == pytest.approx(
        experts_ms[3] * 2 / 8, rel=0.01
    )  # two of eight experts, and all of them


def test_half_the_weights_take_half_the_time():
    wide, narrow = (
        make_step_time("roofline", gpu="h100", model="llama-3.1-8b", weight_dtype=d)
        for d in ("bf16", "fp8")
    )
    batch = make_batch(decodes=[100])
    assert narrow.parts_s(batch, 1)["dense"][0] == pytest.approx(
        wide.parts_s(batch, 1)["dense"][0] / 2
    )


def test_two_gpus_halve_weights_and_kv_and_pay_for_all_reduces():
    one, two = (
        make_step_time("roofline", gpu="h100", model="llama-3.1-8b", tp=tp) for tp in (1, 2)
    )
    batch = make_batch(decodes=[1000] * 64)
    parts = [
        {name: float(s[0]) for name, s in model.parts_s(batch, 1).items()} for model in (one, two)
    ]
    for name in ("dense", "lm_head", "decode_attention"):
        assert parts[1][name] == pytest.approx(parts[0][name] / 2)
    assert parts[0]["all_reduce"] == 0 < parts[1]["all_reduce"]


def test_all_reduces_over_pcie_cost_what_nvlink_hides():
    fields = {"gpu": "l40s", "model": "llama-3.1-8b", "tp": 2}
    pcie = make_step_time("roofline", **fields)
    nvlink = make_step_time(
        "roofline", **{**fields, "gpu": {"name": "l40s", "link_bytes_per_s": 450e9}}
    )
    prefill, decode = make_batch([(2048, 0)]), make_batch(decodes=[1000] * 32)
    sent_bytes = 2048 * 4096 * 2  # two cards send each position's width once per all-reduce
    ring_s = 64 * (sent_bytes / (0.6 * 32e9) + 7e-6)
    assert pcie.parts_s(prefill, 1)["all_reduce"][0] == pytest.approx(ring_s)
    assert pcie.duration_s(prefill) > 1.2 * nvlink.duration_s(prefill)
    assert pcie.duration_s(decode) > nvlink.duration_s(decode)
    given = make_step_time("roofline", **fields, link_efficiency=0.2, all_reduce_latency_s=50e-6)
    assert given.parts_s(prefill, 1)["all_reduce"][0] == pytest.approx(
        64 * (sent_bytes / (0.2 * 32e9) + 50e-6)
    )


def test_weights_over_the_memory_are_refused_with_a_way_out():
    with pytest.raises(
        ValueError, match=r"131.4 GiB of bf16 weights .* does not fit .* use tp = 2 or weight_dtype"
    ):
        make_step_time("roofline", gpu="h100", model="llama-3.1-70b")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"gpu": "h1000"}, "did you mean 'h100'"),
        ({"model": "llama-8b"}, "is not a model of the catalogue"),
        ({"tp": 3}, "tp = 3 cannot share out"),
        ({"tp": 0}, "tp = 0: input should be greater than 0"),
        ({"weight_dtype": "fp3"}, "weight_dtype = 'fp3'"),
        (
            {"gemm_efficiency": 1.2},
            "gemm_efficiency = 1.2: input should be less than or equal to 1",
        ),
        ({"gpu": {"name": "h100", "memory": 3}}, "'memory' is not a field"),
        ({"gpus": 2}, "'gpus' is not a field of it; did you mean 'gpu'"),
    ],
)
def test_a_wrong_roofline_is_one_sentence(parameters, says):
    with pytest.raises(ValueError) as error:
        make_step_time("roofline", **{"gpu": "h100", "model": "llama-3.1-8b", **parameters})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@given(
    st.lists(chunk, max_size=3),
    contexts,
    st.integers(0, 5),
    st.sampled_from([(), (1, 2, 4, 8, 16)]),
    st.sampled_from([(), (4, 32, 128)]),
)
def test_calibrated_is_the_sum_of_its_terms(
    chunks_of, decodes, idle, graph_sizes, mixed_graph_sizes
):
    """The fast form of the simulator and the table of terms that a fit uses say the same."""
    batch = make_batch(chunks_of, decodes, idle)
    coefficients = {
        term.name: (i + 1) * 1e-6 for i, term in enumerate(TERMS) if term.name != "per_token_s"
    }
    model = CalibratedStepTime(
        **coefficients,
        per_token_s=(1e-6, 3e-6),
        token_breaks=(8,),
        graph_sizes=graph_sizes,
        mixed_graph_sizes=mixed_graph_sizes,
        overlap=True,
    )
    rows, chunks = batch.num_decode_tokens + batch.num_idle_rows, len(batch.chunks)
    positions = batch.num_prefill_tokens + batch.num_decode_tokens + batch.num_padded_tokens
    graphs = [size for size in graph_sizes if size >= rows and not chunks]
    graphs += [size for size in mixed_graph_sizes if size >= positions]
    eager = not graphs and bool(chunks or graph_sizes or mixed_graph_sizes)
    positions = graphs[0] if graphs else positions
    keys = batch.decode_context_tokens + rows
    work = Work(rows, chunks, positions, float(eager), batch.prefill_attention, keys)

    def total(part):
        terms = [term for term in TERMS if term.part == part and term.name in coefficients]
        return sum(term.feature(work) * coefficients[term.name] for term in terms)

    per_token_s = 1e-6 * positions + 2e-6 * max(0, positions - 8)
    assert model.device_line(batch)[0] == pytest.approx(total("device") + per_token_s)
    assert model.host_of(batch) == pytest.approx(total("host"))
