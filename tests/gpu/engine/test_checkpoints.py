"""Real checkpoints: each architecture answers as transformers does with the same weights."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from busdoor.core.request import Request  # noqa: E402
from busdoor_gpu.engine.model import load_model  # noqa: E402
from busdoor_gpu.engine.model_config import find_model, read_config  # noqa: E402
from busdoor_gpu.engine.prompts import prompt_tokens  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 211,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama": (transformers.LlamaConfig(**SHAPE, rope_parameters=LLAMA3), "1GB"),
    "mistral": (transformers.MistralConfig(**SHAPE, sliding_window=None), "1GB"),
    "qwen2": (transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True), "1GB"),
    "qwen3": (transformers.Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True), "1GB"),
    "llama sharded": (transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False), "100KB"),
}


@pytest.fixture(params=CASES)
def checkpoint(request, tmp_path):
    config, shard = CASES[request.param]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers begins with zeros
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == ("sharded" in request.param)
    return model, tmp_path


def test_tokens_equal_those_of_transformers(checkpoint, policies, torch_backend, new_trace):
    peer, folder = checkpoint
    trace = new_trace(num_requests=6)
    model = load_model(str(folder), "cpu")
    outputs = replay(
        trace, policies["vllm preempting"](), model, torch_backend, clock="cpu", keep_outputs=True
    ).meta["outputs"]
    for row, (inputs, answer) in enumerate(
        zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    ):
        prompt = prompt_tokens(Request(row, 0.0, inputs, 1, hash_ids=trace.hash_ids[row]), 4, 211)
        made = peer.generate(
            torch.tensor(prompt[None]).long(),
            max_new_tokens=answer,
            do_sample=False,
            pad_token_id=0,
        )
        assert outputs[row] == made[0].tolist(), f"request {row}"


def write_config(folder, **changes):
    written = {**SHAPE, "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-6, **changes}
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def test_a_config_of_before_transformers_5_is_read_too(tmp_path):
    config = read_config(
        write_config(
            tmp_path,
            rope_theta=5e5,
            rope_scaling={k: v for k, v in LLAMA3.items() if k != "rope_theta"},
        )
    )
    assert (config.rope_theta, config.rope_scaling["factor"]) == (5e5, 8.0)
    assert load_model(config, "cpu").weights.embedding.shape == (211, 64), (
        "without weights they are random"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            r"architectures = \['GPT2LMHeadModel'\]; the engine runs LlamaFor",
        ),
        ({"hidden_size": None}, "config.json: hidden_size is None; it must be a number above 0"),
        (
            {"num_hidden_layers": -2},
            "config.json: num_hidden_layers is -2; it must be a number above 0",
        ),
        ({"vocab_size": 10.5}, "config.json vocab_size = 10.5"),
        ({"rms_norm_eps": "small"}, "config.json: rms_norm_eps is small"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3"),
        (
            {"rope_scaling": ["llama3"], "rope_parameters": None},
            "rope_scaling is .*it must be a table",
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}},
            "factor of the rope is None",
        ),
        ({"architectures": "LlamaForCausalLM"}, "is not a model's configuration"),
        (
            {"attention_bias": True},
            "has bias = 'all'; the engine runs models shaped as Llama, Mistral, Qwen2 or Qwen3",
        ),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": 64},
            "has sliding_window = 64; the engine runs",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}},
            "rope_type = 'yarn'; the engine supports",
        ),
    ],
)
def test_what_it_cannot_run_is_said_in_a_sentence(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        read_config(write_config(tmp_path, **changes))


def test_a_config_that_is_no_json_and_a_folder_without_one_are_sentences(tmp_path):
    with pytest.raises(ValueError, match=r"not a checkpoint's folder, as it has no config\.json"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        find_model(str(tmp_path))


def test_a_missing_or_misshapen_tensor_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file(
        {"model.embed_tokens.weight": torch.zeros(211, 32)},
        write_config(tmp_path) / "model.safetensors",
    )
    with pytest.raises(
        ValueError,
        match=r"'model.embed_tokens.weight' has shape \(211, 32\); by config.json it must be "
        r"\(211, 64\)",
    ):
        load_model(str(tmp_path), "cpu")
    save_file({"model.embed_tokens.weight": torch.zeros(211, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no tensor 'model.layers.0.input_layernorm.weight'"):
        load_model(str(tmp_path), "cpu")
