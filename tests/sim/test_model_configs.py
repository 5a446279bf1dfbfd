"""Models by config.json: what is read and refused; what follows for memory and time."""

import json

import numpy as np
import pytest

from busdoor.catalog import kv_capacity, model
from busdoor.catalog.tables import read_tables
from busdoor.config import Config, load_config
from busdoor.config.limits import limits_for
from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.simulate import simulate
from busdoor.step_time import make_step_time
from busdoor_workloads import Trace

CONFIGS = {
    name: table["config"] for name, table in read_tables("models.toml").items() if "config" in table
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def read(tmp_path):
    """Write a config.json and read it back as a model."""

    def write_and_read(config, folder="made"):
        path = tmp_path / folder / "config.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps(config))
        return model(path)

    return write_and_read


# -- what is read
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_json_is_the_catalogues_model(name, read):
    shape = read(CONFIGS[name], name)
    assert shape.name == name
    about = {"aliases", "source"}
    mine, theirs = shape.to_table(), model(name).to_table()
    assert {key: mine[key] for key in mine if key not in about} == {
        key: theirs[key] for key in theirs if key not in about
    }


def test_a_file_a_folder_and_a_snapshot_of_the_hubs_cache_are_models(tmp_path):
    snapshot = tmp_path / "models--Qwen--Qwen9-1B" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "mine.json").write_text(json.dumps(LLAMA))
    assert model(str(snapshot)).name == model(snapshot / "config.json").name == "Qwen9-1B"
    assert model(str(tmp_path / "mine.json")).name == "mine"


# KV bytes per token at 16 bits, all layers: layers x 2 x KV heads x head width x 2, or the 576
# compressed values of latent attention (DeepSeek-V3's report, arXiv 2412.19437: 70 KB; vLLM's blog
# of gpt-oss and their config.json).
KV_BYTES = {
    "llama-3.1-405b": 516_096,
    "llama-4-scout": 196_608,
    "qwen2.5-7b": 57_344,
    "qwen2.5-72b": 327_680,
    "qwen3-30b-a3b": 98_304,
    "qwen3-235b-a22b": 192_512,
    "mixtral-8x22b": 229_376,
    "mistral-small-24b": 163_840,
    "gemma-2-27b": 376_832,
    "gemma-3-27b": 507_904,
    "phi-4": 204_800,
    "deepseek-v2-lite": 31_104,
    "deepseek-v3": 70_272,
    "glm-4.5-air": 188_416,
    "gpt-oss-20b": 49_152,
    "gpt-oss-120b": 73_728,
}


@pytest.mark.parametrize("name", KV_BYTES)
def test_kv_bytes_of_a_token(name):
    assert model(name).kv_bytes_per_token() == KV_BYTES[name]


# Parameters that a token meets, as model cards and reports give them, in billions. gpt-oss's card
# leaves the embedding out, DeepSeek's and Moonshot's half of it; the others are rounded to whole or
# tenths.
ACTIVE = {
    "qwen3-30b-a3b": (3.3, 0.02),
    "qwen3-235b-a22b": (22, 0.02),
    "qwen1.5-moe-a2.7b": (2.7, 0.01),
    "mixtral-8x22b": (39, 0.01),
    "deepseek-v2-lite": (2.4, 0.12),
    "deepseek-v2": (21, 0.02),
    "deepseek-v3": (37, 0.02),
    "kimi-k2": (32, 0.03),
    "glm-4.5": (32, 0.06),
    "glm-4.5-air": (12, 0.12),
    "llama-4-scout": (17, 0.02),
}


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_are_near_what_the_card_says(name):
    billions, tolerance = ACTIVE[name]
    assert model(name).num_active_parameters / 1e9 == pytest.approx(billions, rel=tolerance)


@pytest.mark.parametrize(("name", "billions"), [("gpt-oss-20b", 3.61), ("gpt-oss-120b", 5.13)])
def test_gpt_oss_has_the_active_parameters_of_its_card(name, billions):
    shape = model(name)  # arXiv 2508.10925, table 1: without the embedding
    assert (shape.num_active_parameters - shape.embedding_parameters) / 1e9 == pytest.approx(
        billions, rel=2e-3
    )


def test_gpt_oss_weighs_what_its_checkpoint_does():
    # arXiv 2508.10925, table 1: 12.8 and 60.8 GiB.
    assert model("gpt-oss-20b").weight_bytes() / 2**30 == pytest.approx(12.8, rel=0.01)
    assert model("gpt-oss-120b").weight_bytes() / 2**30 == pytest.approx(60.8, rel=0.01)


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", None, None)),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, ("int4", None, None)),
        ({"quant_method": "gptq", "bits": 8}, ("int8", None, None)),
        ({"quant_method": "gptq_marlin", "bits": 4}, ("int4", None, None)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
            ("fp8", None, "fp8"),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
                "ignore": ["lm_head"],
            },
            ("int4", None, None),
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": "FP8"},
            ("nvfp4", None, "fp8"),
        ),
    ],
)
def test_number_formats_are_the_checkpoints(quantization, formats, read):
    shape = read({**LLAMA, "quantization_config": quantization})
    assert (shape.weight_dtype, shape.expert_dtype, shape.kv_dtype) == formats


def test_experts_alone_may_be_quantised(read):
    skip = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]
    group = {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}
    quantization = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "ignore": skip,
    }
    shape = read({**CONFIGS["kimi-k2"], "quantization_config": quantization})  # as Kimi-K2.5's
    assert (shape.weight_dtype, shape.expert_dtype) == ("bf16", "int4")


def test_16_bits_are_those_of_the_file(read):
    assert [
        read({**LLAMA, "torch_dtype": name}).weight_dtype
        for name in ("bfloat16", "float16", "float32")
    ] == [
        "bf16",
        "fp16",
        "bf16",
    ]


# -- what is refused
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            "'MambaForCausalLM' is not an architecture that is read",
        ),
        ({"architectures": None}, "architectures is missing"),
        (
            {"num_hidden_layers": None},
            "num_hidden_layers is missing; give the file that belongs to the weights",
        ),
        ({"hidden_size": "256"}, "hidden_size is '256'; it must be a whole number above 0"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "num_experts is missing"),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "qk_rope_head_dim is missing"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; it must be true or false"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            "quantization_config is {'quant_method': 'bitsa",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "with 4 or 8 bits"),
        (
            {
                "quantization_config": {
                    "quant_method": "fp8",
                    "ignored_layers": ["model.layers.0.self_attn"],
                }
            },
            "one that covers the attention too",
        ),
        (
            {"torch_dtype": "int16"},
            "torch_dtype is 'int16'; it must be bfloat16 or float16 or float32",
        ),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads = 4 must be a multiple of num_key_value_heads = 3",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_with_the_file(change, says, read):
    with pytest.raises(ValueError) as error:
        read({key: value for key, value in {**LLAMA, **change}.items() if value is not None})
    assert says in str(error.value) and "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    for text, says in (("{", "is no JSON"), ("[1]", "must be a JSON table")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=says):
            model(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/config.json", "nowhere.json"])
def test_a_path_without_a_file_is_refused(name):
    with pytest.raises(
        ValueError, match=r"there is no such file, nor a folder with a config\.json"
    ):
        model(name)


# -- what follows
# -----------------------------------------------------------------------------------------------


def test_latent_attention_holds_the_same_keys_on_every_gpu():
    shape = model("deepseek-v3")
    assert shape.kv_bytes_per_token(tp=8) == shape.kv_bytes_per_token()
    with pytest.raises(ValueError, match="tp = 3 cannot share out"):
        shape.check_tp(3)


def test_windowed_layers_keep_no_more_than_their_window():
    shape = model("gpt-oss-20b")  # half of its layers see 128 tokens
    whole = shape.kv_bytes_per_token()
    assert shape.kv_bytes_per_token(context_tokens=100) == whole
    assert shape.kv_bytes_per_token(context_tokens=1280) == pytest.approx(whole * (0.5 + 0.5 * 0.1))
    blocks = [kv_capacity("h100", shape, context_tokens=tokens) for tokens in (None, 1280)]
    assert blocks[1] == pytest.approx(blocks[0] / 0.55, rel=1e-4)


def test_a_run_leaves_windowed_models_the_memory_of_its_own_requests():

    config = Config.from_table({"gpu": {"name": "h100", "model": "gpt-oss-20b"}})
    traces = [
        [Trace(arrival_s=[0], input_tokens=[tokens], output_tokens=[10])] for tokens in (50, 5000)
    ]
    short, long = (limits_for(config, trace).kv.num_blocks for trace in traces)
    assert 1.8 < long / short < 2


def prefill(*chunks):
    batch = Batch()
    for tokens, context in chunks:
        batch.add_chunk(Request(0, 0.0, tokens + context, 2), tokens, context)
    return batch


def seen(context, tokens, window):
    """Query-key pairs of a windowed layer, query by query."""
    return sum(min(context + i + 1, window) for i in range(tokens))


@pytest.mark.parametrize(
    "chunks", [[(10, 0)], [(300, 0)], [(300, 50)], [(20, 500)], [(7, 121)], [(5, 0), (400, 90)]]
)
def test_windowed_layers_attend_to_their_window(chunks):
    windowed = make_step_time(
        "roofline", gpu="h100", model="gpt-oss-20b", kv_dtype="int4"
    )  # FLOP decide
    batch, cost = prefill(*chunks), windowed.costs
    keys, pairs = cost.windows.prefill(batch)
    assert pairs == pytest.approx(
        sum(0.5 * (seen(c, n, 10**9) + seen(c, n, 128)) for n, c in chunks)
    )
    assert keys == sum(0.5 * (c + n) + 0.5 * (min(c, 128) + n) for n, c in chunks)
    expected = max(keys * cost.key_s, pairs * cost.pair_s)
    assert windowed.parts_s(batch, 1)["prefill_attention"][0] == pytest.approx(expected)


def test_decodes_past_the_window_grow_with_the_other_layers_alone():
    windowed = make_step_time("roofline", gpu="h100", model="gpt-oss-20b")
    below = Batch(num_decode_tokens=4, decode_context_tokens=4 * 100)
    past = Batch(num_decode_tokens=4, decode_context_tokens=4 * 128)
    assert windowed.line(below) is None  # they may pass the window: no line
    first_s, growth_s = windowed.line(past)
    np.testing.assert_allclose(
        first_s + growth_s * np.arange(9), windowed.durations_s(past, 9), rtol=1e-12
    )
    assert growth_s == pytest.approx(4 * 0.5 * windowed.costs.decode_pair_s)
    pairs = windowed.parts_s(below, 60)["decode_attention"] / windowed.costs.decode_pair_s
    assert pairs.tolist() == pytest.approx(
        [4 * (0.5 * (101 + i) + 0.5 * min(101 + i, 128)) for i in range(60)]
    )


def test_a_run_with_windows_is_the_same_jumped_and_step_by_step():
    trace = Trace(arrival_s=[0, 0.01, 0.3], input_tokens=[90, 30, 400], output_tokens=[80, 200, 30])
    step_time = make_step_time("roofline", gpu="h100", model="gpt-oss-20b")
    runs = []
    for step_by_step in (False, True):
        policy = VllmPolicy(
            PagedKV(1000, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=1024
        )
        runs.append(simulate(trace, policy, step_time, step_by_step=step_by_step))
    np.testing.assert_allclose(
        runs[0].requests["finish_s"], runs[1].requests["finish_s"], rtol=1e-9
    )


def test_latent_attention_decodes_on_compressed_keys():
    shape = model("deepseek-v3")
    assert shape.attention_flop_per_pair == 2 * 61 * 128 * (192 + 128)
    assert shape.decode_flop_per_pair == 2 * 61 * 128 * (512 + 64 + 512)
    cost = make_step_time("roofline", gpu="h200", model=shape, tp=8).costs
    assert cost.decode_pair_s == max(cost.key_s, cost.decode_flop_s)


def test_shared_experts_and_first_dense_layers_are_read_at_every_step():
    shape = model("deepseek-v3")
    per_layer = shape.attention_parameters + 2 * 7168
    dense = 61 * per_layer + 3 * (3 * 7168 * 18432) + 58 * (3 * 7168 * 2048 + 7168 * 256) + 7168
    assert shape.dense_parameters == dense
    assert shape.expert_parameters == 58 * 3 * 7168 * 2048


def test_quantised_experts_are_read_at_their_own_width():
    narrow, wide = (
        make_step_time(
            "roofline",
            gpu="a100-80gb",
            model=model("gpt-oss-20b").to_table() | {"expert_dtype": dtype},
        )
        for dtype in ("mxfp4", "bf16")
    )
    assert narrow.costs.expert_read_s == pytest.approx(wide.costs.expert_read_s * 0.53125 / 2)
    assert narrow.costs.dense_read_s == wide.costs.dense_read_s


def test_a_configuration_finds_the_file_beside_it(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "run.toml").write_text('[gpu]\nname = "l40s"\nmodel = "m"\n')
    monkeypatch.chdir("/")
    config = load_config(tmp_path / "run.toml")
    assert config.gpu.model.name == "m" and config.gpu.model.hidden_size == 256
    again = Config.from_table({"gpu": config.gpu.to_dict()})
    assert again.gpu == config.gpu
