"""Architectures of Hugging Face's transformers: what each makes of the keys of its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from busdoor.catalog.config_keys import ConfigKeys

Fields = dict[str, Any]
_WINDOWED = ("sliding_attention", "chunked_attention")


@dataclass(frozen=True)
class Family:
    """What an architecture adds to the keys that all have: further fields of `ModelShape`.

    `assumed` are values of keys that published files leave out: the defaults of transformers 4.57,
    `models/*/configuration_*.py`.
    """

    fields: Callable[[ConfigKeys], Fields]
    assumed: Mapping[str, Any] = field(default_factory=dict)


def _llama(keys: ConfigKeys) -> Fields:
    return {"bias": "all" if keys.flag("mlp_bias") else _attention_bias(keys)}


def _mistral(keys: ConfigKeys) -> Fields:
    return _windows(keys, keys.count("num_hidden_layers"))


def _mixtral(keys: ConfigKeys) -> Fields:
    experts = {"num_experts": keys.count("num_local_experts")}
    return {**experts, "num_experts_per_tok": keys.count("num_experts_per_tok"), **_mistral(keys)}


def _qwen2(keys: ConfigKeys) -> Fields:
    windowed = keys.count("num_hidden_layers") - (keys.get("max_window_layers") or 0)
    windows = _windows(keys, max(0, windowed)) if keys.flag("use_sliding_window") else {}
    return {"bias": "qkv", **windows}


def _qwen3(keys: ConfigKeys) -> Fields:
    return {**_qwen2(keys), "bias": _attention_bias(keys), "qk_norm": True}


def _qwen_experts(keys: ConfigKeys) -> Fields:
    step, alone = keys.count_or(1, "decoder_sparse_step"), keys.sequence("mlp_only_layers")
    layers = range(keys.count("num_hidden_layers"))
    return {
        "num_experts": keys.count("num_experts"),
        "num_experts_per_tok": keys.count("num_experts_per_tok"),
        "moe_intermediate_size": keys.count("moe_intermediate_size"),
        "shared_intermediate_size": keys.count_or(0, "shared_expert_intermediate_size"),
        "num_dense_layers": sum(layer in alone or (layer + 1) % step != 0 for layer in layers),
    }


def _gemma2(keys: ConfigKeys) -> Fields:
    every_other = (keys.count("num_hidden_layers") + 1) // 2  # the first is windowed
    return {"norms_per_layer": 4, **_windows(keys, every_other)}


def _gemma3(keys: ConfigKeys) -> Fields:
    layers = keys.count("num_hidden_layers")
    # the last of each pattern attends to all
    whole = layers // keys.count("sliding_window_pattern")
    return {"norms_per_layer": 4, "qk_norm": True, **_windows(keys, layers - whole)}


def _phi(keys: ConfigKeys) -> Fields:
    """Return Phi-1 and 2: attention and MLP side by side behind one LayerNorm, all biased."""
    return {"mlp": "plain", "bias": "all", "norm_bias": True, "norms_per_layer": 1}


def _deepseek(keys: ConfigKeys) -> Fields:
    rope, nope = keys.count("qk_rope_head_dim"), keys.count("qk_nope_head_dim")
    latent = {
        "kv_lora_rank": keys.count("kv_lora_rank"),
        "q_lora_rank": keys.count_or(0, "q_lora_rank"),
        "qk_rope_head_dim": rope,
        "v_head_dim": keys.count("v_head_dim"),
        "head_dim": rope + nope,
        "num_key_value_heads": keys.count("num_attention_heads"),
    }
    return {**latent, **_routed_experts(keys)}


def _routed_experts(keys: ConfigKeys) -> Fields:
    """Return the experts of DeepSeek's and GLM's files; no fields where there are none."""
    if keys.count_or(0, "n_routed_experts") == 0:
        return {}
    width, every = keys.count("moe_intermediate_size"), keys.count_or(1, "moe_layer_freq")
    first = keys.count_or(0, "first_k_dense_replace")
    between = sum(layer % every != 0 for layer in range(first, keys.count("num_hidden_layers")))
    return {
        "num_experts": keys.count("n_routed_experts"),
        "num_experts_per_tok": keys.count("num_experts_per_tok"),
        "moe_intermediate_size": width,
        "shared_intermediate_size": width * keys.count_or(0, "n_shared_experts"),
        "num_dense_layers": first + between,
    }


def _glm4_moe(keys: ConfigKeys) -> Fields:
    bias = "qkv" if keys.flag("attention_bias") else "none"
    return {"bias": bias, "qk_norm": keys.flag("use_qk_norm"), **_routed_experts(keys)}


def _gpt_oss(keys: ConfigKeys) -> Fields:
    every_other = (keys.count("num_hidden_layers") + 1) // 2  # the first is windowed
    return {
        "bias": "all",
        "num_experts": keys.count("num_local_experts"),
        "num_experts_per_tok": keys.count("num_experts_per_tok"),
        **_windows(keys, every_other),
    }


def _llama4(keys: ConfigKeys) -> Fields:
    layers, width = keys.count("num_hidden_layers"), keys.count("intermediate_size")
    mixtures = len(keys.sequence("moe_layers")) or layers // keys.count("interleave_moe_layer_step")
    whole = layers // keys.count_or(4, "no_rope_layer_interval")
    return {
        "intermediate_size": keys.count("intermediate_size_mlp"),
        "num_experts": keys.count("num_local_experts"),
        "num_experts_per_tok": keys.count("num_experts_per_tok"),
        "moe_intermediate_size": width,
        "shared_intermediate_size": width,
        "num_dense_layers": layers - mixtures,
        **_windows(keys, layers - whole, "attention_chunk_size"),
    }


def _attention_bias(keys: ConfigKeys) -> str:
    return "attention" if keys.flag("attention_bias") else "none"


def _windows(keys: ConfigKeys, layers: int, key: str = "sliding_window") -> Fields:
    """Return the window and how many layers have it: those that the file lists, else so many."""
    window, kinds = keys.count_or(0, key), keys.sequence("layer_types")
    layers = sum(kind in _WINDOWED for kind in kinds) if kinds else layers
    if not window or not layers or window >= keys.count("max_position_embeddings"):
        return {}
    return {"sliding_window": window, "num_window_layers": layers}


_GEMMA = {"head_dim": 256, "tie_word_embeddings": True}
_GEMMA3 = {
    **_GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262_208,
    "max_position_embeddings": 131_072, "sliding_window": 4096, "sliding_window_pattern": 6,
}  # fmt: skip
_LLAMA4 = {
    "attention_chunk_size": 8192, "interleave_moe_layer_step": 1, "vocab_size": 202_048,
    "max_position_embeddings": 131_072,
}  # fmt: skip

_FAMILIES = {
    ("LlamaForCausalLM", "llama"): Family(_llama, {"max_position_embeddings": 2048}),
    ("Llama4ForCausalLM", "llama4_text"): Family(_llama4, _LLAMA4),
    ("MistralForCausalLM", "mistral"): Family(_mistral),
    ("MixtralForCausalLM", "mixtral"): Family(_mixtral),
    ("Qwen2ForCausalLM", "qwen2"): Family(_qwen2),
    ("Qwen2MoeForCausalLM", "qwen2_moe"): Family(
        lambda keys: {**_qwen2(keys), **_qwen_experts(keys)}
    ),
    ("Qwen3ForCausalLM", "qwen3", "qwen3_vl_text"): Family(_qwen3),
    ("Qwen3MoeForCausalLM", "qwen3_moe", "qwen3_vl_moe_text"): Family(
        lambda keys: {**_qwen3(keys), **_qwen_experts(keys)}
    ),
    ("Gemma2ForCausalLM", "gemma2"): Family(_gemma2, {**_GEMMA, "sliding_window": 4096}),
    ("Gemma3ForCausalLM", "gemma3_text"): Family(_gemma3, _GEMMA3),
    ("PhiForCausalLM", "phi"): Family(_phi),
    ("Phi3ForCausalLM", "phi3"): Family(_mistral),
    ("DeepseekV2ForCausalLM", "deepseek_v2"): Family(_deepseek),
    ("DeepseekV3ForCausalLM", "deepseek_v3", "kimi_k2"): Family(_deepseek),
    ("Glm4MoeForCausalLM", "glm4_moe"): Family(_glm4_moe),
    ("GptOssForCausalLM", "gpt_oss"): Family(_gpt_oss),
}
FAMILIES = {name: family for names, family in _FAMILIES.items() for name in names}
