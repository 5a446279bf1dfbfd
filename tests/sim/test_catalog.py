"""The catalogue against published figures: parameter counts, bytes a token, names and sources."""

import re
from pathlib import Path

import pytest

from busdoor.catalog import (
    GPU,
    ModelShape,
    gpu,
    gpu_names,
    kv_capacity,
    model,
    model_names,
)
from busdoor.config import Config

# Parameters of the published checkpoints (safetensors metadata on the Hugging Face hub; OPT's paper
# for the OPTs).
PUBLISHED_PARAMETERS = {
    "opt-13b": 12.853e9,
    "opt-66b": 65.72e9,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "codellama-34b": 33_743_970_304,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "mistral-7b": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "yi-34b": 34_388_917_248,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-405b": 405_853_388_800,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "mistral-small-24b": 23_572_403_200,
    "mixtral-8x22b": 140_620_634_112,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "phi-2": 2_779_683_840,
    "phi-4": 14_659_507_200,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    # Without the next-token modules and block scales that the files hold beside the model's own
    # weights.
    "deepseek-v3": 671_026_419_200,
    "kimi-k2": 1_026_408_232_448,
    "gpt-oss-20b": 20_914_757_184,  # arXiv 2508.10925, table 1: 20.91 and 116.83 billion
    "gpt-oss-120b": 116_829_156_672,
}
# Told in whole billions, or with a tower for pictures (0.42e9 and 0.87e9) that is not read.
PUBLISHED_BILLIONS = {
    "glm-4.5": 355,
    "glm-4.5-air": 106,
    "llama-4-scout": 109,
    "llama-4-maverick": 402,
    "gemma-3-27b": 27.4,
}
DENSE = [name for name in model_names() if model(name).num_experts == 1]


def test_every_model_has_a_published_count():
    assert {*PUBLISHED_PARAMETERS, *PUBLISHED_BILLIONS} == set(model_names())


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameters_match_the_published_count(name):
    assert model(name).num_parameters == pytest.approx(PUBLISHED_PARAMETERS[name], rel=1e-4)


@pytest.mark.parametrize("name", PUBLISHED_BILLIONS)
def test_parameters_are_near_what_the_card_says(name):
    assert model(name).num_parameters / 1e9 == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.015)


def test_a_token_meets_two_of_mixtrals_experts():
    assert model("mixtral-8x7b").num_active_parameters == pytest.approx(
        12.9e9, rel=5e-3
    )  # Mixtral paper


@pytest.mark.parametrize("name", DENSE)
def test_a_token_meets_all_of_a_dense_model(name):
    assert model(name).num_active_parameters == model(name).num_parameters


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("opt-13b", 800),
        ("llama-3.1-8b", 128),
        ("llama-3.2-1b", 32),
        ("qwen3-0.6b", 112),
        ("qwen3-4b", 144),
    ],
)
def test_kv_bytes_per_token_match_the_references(name, kib):
    assert (
        model(name).kv_bytes_per_token() == kib * 1024
    )  # vLLM paper (819,200 bytes); gpu-anchors 1.3


def test_kv_heads_are_shared_out_and_then_repeated():
    llama = model("llama-3.1-8b")  # 8 KV heads, 32 query heads
    assert [llama.kv_bytes_per_token(tp=tp) / 1024 for tp in (1, 2, 8, 16)] == [128, 64, 16, 16]


def test_quantised_weights_leave_embeddings_and_lm_head_at_16_bits():
    llama = model("llama-3.1-8b")
    wide = 2 * 128256 * 4096
    assert llama.weight_bytes("fp8") == 2 * wide + (llama.num_parameters - wide)
    assert llama.weight_bytes("int4") < llama.weight_bytes("fp8") < llama.weight_bytes("bf16")


# -- names
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("H100", "h100"),
        ("H100-SXM", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("a100", "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD_Instinct_MI300X", "mi300x"),
        ("Tesla T4", "t4"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA H20", "h20"),
    ],
)
def test_gpus_answer_to_the_names_people_use(typed, name):
    assert gpu(typed).name == name


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("facebook/opt-13b", "opt-13b"),
    ],
)
def test_models_answer_to_the_names_people_use(typed, name):
    assert model(typed).name == name


@pytest.mark.parametrize(
    ("look_up", "typed", "near"), [(gpu, "H10O", "h100"), (model, "lama-3.1-8b", "llama-3.1-8b")]
)
def test_a_wrong_name_is_answered_with_the_nearest(look_up, typed, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        look_up(typed)


def test_a_table_starts_from_the_catalogue_entry_of_its_name():
    card = gpu({"name": "H100", "memory_gib": 93.0})
    assert (card.memory_gib, card.bandwidth_bytes_per_s) == (
        93.0,
        gpu("h100").bandwidth_bytes_per_s,
    )


def test_a_table_of_ones_own_is_a_model():
    small = model({**TINY, "name": "tiny"})
    assert small.kv_bytes_per_token() == 2 * 2 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"hidden": 3}, "'hidden' is not a field of it; did you mean 'hidden_size'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0: input should be greater than 0"),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads = 4 must be a multiple of num_key_value_heads = 3",
        ),
        ({"num_experts_per_tok": 2}, "num_experts_per_tok = 2 > num_experts = 1"),
    ],
)
def test_a_wrong_model_table_is_one_sentence(table, says):
    with pytest.raises(ValueError) as error:
        model({**TINY, **table})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gpu_table_without_a_bf16_rate_is_one_sentence():
    with pytest.raises(ValueError, match=r"flop_per_s of mine has no bf16 rate"):
        gpu(
            {
                "name": "mine",
                "memory_gib": 8,
                "bandwidth_bytes_per_s": 1e12,
                "flop_per_s": {"fp16": 1e12},
            }
            | LINK
        )


def test_a_missing_field_is_named():
    with pytest.raises(
        ValueError, match=r"\[model\]: num_hidden_layers, hidden_size, .* and .* are missing"
    ):
        model({"name": "mine"})


TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
LINK = {"link_bytes_per_s": 1e9}


def test_four_keys_are_a_gpu_of_ones_own():
    card = {
        "memory_gib": 24,
        "bandwidth_bytes_per_s": 936e9,
        "flop_per_s": 71e12,
        "price_per_hour": 0.25,
    }
    config = Config.from_table({"gpu": {"name": card, "model": "qwen3-8b"}})
    assert config.gpu.name.rate("bf16") == config.gpu.name.rate("int4") == 71e12
    assert config.price_per_hour == 0.25
    assert Config.from_table({"gpu": config.gpu.to_dict()}).gpu == config.gpu
    assert config.gpu.num_blocks(16) == pytest.approx(kv_capacity("rtx-3090", "qwen3-8b"), rel=0.2)


def test_a_list_price_of_the_catalogue_counts_only_where_it_is_given():
    assert gpu("l4").price_per_hour and gpu("l4").sources["price_per_hour"].startswith("USD")
    assert Config.from_table({"gpu": {"name": "l4", "model": "qwen3-4b"}}).price_per_hour is None


# Memory (GB), bandwidth (GB/s), dense bf16 and fp8 rates (TFLOP/s; 0: none) as NVIDIA's and AMD's
# datasheets give them; T4 and V100 have no bf16, so their fp16 rate.
DATASHEETS = {
    "t4": (16, 320, 65, 0),
    "l4": (24, 300, 121, 242.5),
    "a10": (24, 600, 125, 0),
    "a10g": (24, 600, 70, 0),
    "a30": (24, 933, 165, 0),
    "a40": (48, 696, 149.7, 0),
    "v100-16gb": (16, 900, 125, 0),
    "v100-32gb": (32, 900, 125, 0),
    "rtx-a6000": (48, 768, 154.8, 0),
    "rtx-3090": (24, 936, 71, 0),
    "rtx-4090": (24, 1008, 165.2, 330.3),
    "rtx-5090": (32, 1792, 209.5, 419),
    "rtx-pro-6000": (96, 1792, 503.8, 1007.6),
    "l40": (48, 864, 181.05, 362),
    "l40s": (48, 864, 362.05, 733),
    "a100-40gb": (40, 1555, 312, 0),
    "a100-80gb": (80, 2039, 312, 0),
    "h100": (80, 3350, 989.4, 1978.9),
    "h100-pcie": (80, 2000, 756.5, 1513),
    "h100-nvl": (94, 3900, 835.5, 1670.5),
    "h200": (141, 4800, 989.4, 1978.9),
    "h20": (96, 4000, 148, 296),
    "gh200": (96, 4000, 989.4, 1978.9),
    "b200": (180, 8000, 2250, 4500),
    "b300": (270, 7750, 2250, 4500),
    "gb200": (186, 8000, 2500, 5000),
    "gb300": (279, 8000, 2500, 5000),
    "mi300a": (128, 5300, 980.6, 1961.2),
    "mi300x": (192, 5300, 1307.4, 2614.9),
    "mi325x": (256, 6000, 1307.4, 2614.9),
    "mi355x": (288, 8000, 2516.6, 5033.2),
}


def test_every_gpu_is_held_to_its_datasheet():
    assert set(DATASHEETS) == set(gpu_names())


@pytest.mark.parametrize("name", DATASHEETS)
def test_a_gpu_has_the_figures_of_its_datasheet(name):
    memory_gb, gb_per_s, bf16, fp8 = DATASHEETS[name]
    card = gpu(name)
    assert (card.bandwidth_bytes_per_s, card.rate("bf16")) == pytest.approx(
        (gb_per_s * 1e9, bf16 * 1e12)
    )
    assert card.flop_per_s.get("fp8", 0) == pytest.approx(fp8 * 1e12)
    # Makers count GB of 1e9 or of 2**30 bytes; error correction and the driver take up to 11 % of a
    # label.
    assert 0.89 * memory_gb < card.memory_gib < 1.001 * memory_gb


@pytest.mark.parametrize("name", gpu_names())
def test_every_figure_of_a_gpu_has_its_source(name):
    figures = {"memory_gib", "bandwidth_bytes_per_s", "flop_per_s", "link_bytes_per_s"}
    sources = set(gpu(name).sources)
    assert figures <= sources
    assert sources & {"efficiencies", "memory_efficiency"}


@pytest.mark.parametrize("name", model_names())
def test_every_model_has_its_source(name):
    assert model(name).source


def test_catalogue_objects_are_frozen():
    assert isinstance(gpu("h100"), GPU)
    assert isinstance(model("qwen3-4b"), ModelShape)
    with pytest.raises(Exception, match=r"frozen|assign"):
        gpu("h100").memory_gib = 1  # type: ignore[misc]


def test_the_page_names_every_gpu_and_model():
    page = (Path(__file__).parents[2] / "docs" / "gpus-and-models.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z][a-z0-9.-]*[a-z0-9]", page))
    assert {*gpu_names(), *model_names()} <= words
