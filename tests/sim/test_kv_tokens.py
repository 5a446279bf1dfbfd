"""KV tokens beside those that vLLM logged: "GPU KV cache size: N tokens".

Dense models within 5 %, mixtures within 10 %. Versions differ by up to 4 GiB of working space, so
each line has that of its version: "0.9" is up to 0.11.0, "0.11" from 0.11.1 to 0.17, "0.18" from
there on.
"""

from typing import NamedTuple

import pytest

from busdoor.catalog import kv_capacity, memory_plan, model


class Line(NamedTuple):
    """One line of a log: what ran, how, and the tokens that it says."""

    model: str
    gpu: str
    tp: int
    vllm: str
    tokens: int
    options: dict
    source: str


# https://github.com/ashishkamra/vllm-memory-estimator test_data/validation_db.json: parsed logs of
# servers with --gpu-memory-utilization 0.92, --max-model-len 8192 or 10000, and vLLM's default
# budget of the time, 8,192.
DB = "vllm-memory-estimator validation_db.json"
AT_92 = {"gpu_memory_utilization": 0.92, "max_num_batched_tokens": 8192, "max_num_seqs": 1024}
FP8 = AT_92 | {"weight_dtype": "fp8"}
# https://github.com/inference-sim/sim-to-real-accuracy-validation tests of
# experiment/kv_cache_extractor.py, and inference-sim/training exp-config.yaml: vLLM 0.15.1,
# --max-num-seqs 128 --max-num-batched-tokens 2048, default share.
SIM = "inference-sim, vLLM 0.15.1"
AT_90 = {"gpu_memory_utilization": 0.9, "max_num_batched_tokens": 2048, "max_num_seqs": 128}
# A Korean blog's "quantization-3way-benchmark" (jinwoong, 2026-08-19): vLLM 0.8.5.post1, defaults,
# AWS g6e.xlarge.
G6E = "quantization-3way-benchmark, vLLM 0.8.5"
DEFAULTS = {"gpu_memory_utilization": 0.9}

DENSE = [
    Line("llama-3.1-70b", "h200", 4, "0.11", 1_182_608, AT_92, f"{DB}, 0.11.2 and 0.13"),
    Line("llama-3.1-70b", "h200", 4, "0.18", 1_200_400, AT_92, f"{DB}, 0.18"),
    Line("llama-3.1-70b", "h200", 4, "0.9", 1_429_856, FP8, f"{DB}, 0.11.0"),
    Line("llama-3.1-70b", "h200", 4, "0.11", 1_391_344, FP8, f"{DB}, 0.11.2"),
    Line("llama-3.1-70b", "h200", 4, "0.11", 2_785_088, FP8 | {"kv_dtype": "fp8"}, f"{DB}, 0.16"),
    Line("llama-3.1-70b", "h200", 4, "0.18", 2_818_848, FP8 | {"kv_dtype": "fp8"}, f"{DB}, 0.18"),
    Line("llama-3.1-70b", "b200", 4, "0.18", 1_664_848, AT_92, f"{DB}, 0.18"),
    Line("llama-3.1-70b", "b200", 4, "0.18", 3_747_120, FP8 | {"kv_dtype": "fp8"}, f"{DB}, 0.18"),
    Line("llama-3.1-70b", "mi300x", 1, "0.11", 128_032, AT_92, f"{DB}, 0.14.1"),
    Line("llama-3.1-70b", "mi300x", 1, "0.11", 669_744, FP8 | {"kv_dtype": "fp8"}, f"{DB}, 0.14.1"),
    Line("llama-2-7b", "h100", 1, "0.11", 119_408, AT_90, SIM),
    Line("llama-2-70b", "h100", 4, "0.11", 501_712, AT_90, SIM),
    Line("codellama-34b", "h100", 2, "0.11", 425_648, AT_90, SIM),
    Line("qwen2.5-7b", "l40s", 1, "0.9", 444_592, DEFAULTS, G6E),
    Line("qwen2.5-7b", "l40s", 1, "0.9", 553_216, DEFAULTS | {"weight_dtype": "fp8"}, G6E),
    Line("qwen2.5-7b", "l40s", 1, "0.9", 611_248, DEFAULTS | {"weight_dtype": "int4"}, G6E),
    Line(
        "qwen2.5-1.5b",
        "h200",
        1,
        "0.18",
        4_513_888,
        DEFAULTS,
        "docs/decisions.md of a benchmark, vLLM 0.19.1",
    ),
]
MIXTURES = [
    Line("mixtral-8x7b", "h100", 2, "0.11", 440_176, AT_90, SIM),
    Line("deepseek-v3", "h200", 8, "0.11", 635_648, AT_92, f"{DB}, 0.11.2"),
    Line("deepseek-v3", "h200", 8, "0.11", 658_752, AT_92, f"{DB}, 0.13"),
    Line("deepseek-v3", "h200", 8, "0.18", 654_048, AT_92, f"{DB}, 0.18"),
    Line("deepseek-v3", "b200", 8, "0.18", 1_219_424, AT_92, f"{DB}, 0.18"),
    Line("deepseek-v3", "mi300x", 8, "0.11", 1_297_552, AT_92, f"{DB}, 0.14.1"),
    Line("qwen3-235b-a22b", "h200", 4, "0.11", 284_080, AT_92, f"{DB}, 0.11.2"),
    Line("qwen3-235b-a22b", "h200", 4, "0.11", 1_475_472, FP8, f"{DB}, 0.11.2, expert parallel"),
    Line("qwen3-235b-a22b", "h200", 4, "0.9", 1_553_136, FP8, f"{DB}, 0.11.0, expert parallel"),
    Line(
        "qwen3-30b-a3b",
        "h200",
        1,
        "0.11",
        701_600,
        AT_92,
        f"{DB}, 0.13: Qwen3-VL, with 1.4 GiB for pictures",
    ),
    Line(
        "qwen3-30b-a3b",
        "h200",
        1,
        "0.18",
        732_176,
        AT_92,
        f"{DB}, 0.18: Qwen3-VL, with 1.4 GiB for pictures",
    ),
    Line(
        "llama-4-maverick",
        "h200",
        8,
        "0.11",
        1_142_384,
        AT_92,
        f"{DB}, 0.11.2, with a tower for pictures",
    ),
]


def name(line):
    return f"{line.model}-{line.gpu}-{line.source[-20:]}"


def ours(line):
    return 16 * kv_capacity(line.gpu, line.model, tp=line.tp, vllm=line.vllm, **line.options)


@pytest.mark.parametrize("line", DENSE, ids=name)
def test_a_dense_model_has_the_kv_tokens_of_the_log(line):
    assert ours(line) == pytest.approx(line.tokens, rel=0.05)


@pytest.mark.parametrize("line", MIXTURES, ids=name)
def test_a_mixture_has_the_kv_tokens_of_the_log(line):
    assert ours(line) == pytest.approx(line.tokens, rel=0.10)


def test_half_of_all_lines_is_within_one_and_a_half_percent():
    errors = sorted(abs(ours(line) / line.tokens - 1) for line in DENSE + MIXTURES)
    assert errors[len(errors) // 2] < 0.015


# Weights as vLLM logged them beside those lines ("Model loading took ... GiB").
@pytest.mark.parametrize(
    ("name", "tp", "dtype", "gib"),
    [
        ("llama-3.1-70b", 4, None, 32.889),
        ("llama-3.1-70b", 4, "fp8", 16.962),
        ("llama-3.1-70b", 1, None, 131.62),
        ("qwen3-235b-a22b", 4, None, 109.607),
        ("qwen3-235b-a22b", 4, "fp8", 55.203),
        ("deepseek-v3", 8, None, 79.739),
        ("llama-4-maverick", 8, None, 93.786),
        ("qwen2.5-7b", 1, None, 14.249),
        ("qwen2.5-7b", 1, "fp8", 8.143),
        ("qwen2.5-7b", 1, "int4", 5.181),
        (
            "gpt-oss-20b",
            1,
            None,
            13.72,
        ),  # with its experts padded, on an A100 (myoceane.fr, vLLM 0.19)
    ],
)
def test_weights_take_what_vllm_loads(name, tp, dtype, gib):
    loaded = model(name).weight_bytes(dtype) / tp / 2**30
    assert loaded == pytest.approx(gib, rel=0.07 if name == "gpt-oss-20b" else 0.02)


def test_a_version_changes_the_working_space_alone():
    plans = {
        version: memory_plan("h200", "deepseek-v3", tp=8, vllm=version)
        for version in ("0.9", "0.11", "0.18")
    }
    assert len({plan.weight_bytes for plan in plans.values()}) == 1
    assert memory_plan("h200", "deepseek-v3", tp=8) == plans["0.18"]
    assert plans["0.18"].reserve_bytes < plans["0.11"].reserve_bytes < plans["0.9"].reserve_bytes


def test_gpt_oss_leaves_the_kv_memory_of_the_log():
    """Its tokens depend on how vLLM groups windowed layers; the memory does not.

    https://myoceane.fr/index.php/ai-vllm-a100-gemma-4/: vLLM 0.19, A100 80 GB, share 0.65.
    """
    plan = memory_plan("a100-80gb", "gpt-oss-20b", gpu_memory_utilization=0.65)
    assert plan.kv_bytes / 2**30 == pytest.approx(36.56, rel=0.05)
