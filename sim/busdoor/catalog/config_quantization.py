"""The number formats that a Hugging Face config.json declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from busdoor.catalog.config_keys import ConfigKeys
from busdoor.catalog.dtypes import Dtype

# vLLM, too, casts 32-bit checkpoints down (`dtype = "auto"`).
_PLAIN: dict[str, Dtype] = {"bfloat16": "bf16", "float16": "fp16", "float32": "bf16"}
_METHODS = ("fp8", "fbgemm_fp8", "awq", "gptq", "mxfp4", "compressed-tensors", "modelopt")
_BITS: dict[tuple[str, int], Dtype] = {
    ("int", 4): "int4", ("int", 8): "int8", ("float", 8): "fp8", ("float", 4): "nvfp4",
}  # fmt: skip
_SKIPPED = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
_REMEDY = "or remove quantization_config and give weight_dtype"


def formats(keys: ConfigKeys, has_experts: bool) -> dict[str, Dtype]:
    """Return the fields of a `ModelShape` for its number formats.

    Where a mixture of experts leaves the attention at 16 bits, only the routed experts count as
    quantised. Raises ValueError if the file quantises in a way that is not known; the message names
    it.

    >>> table = {"quantization_config": {"quant_method": "awq", "bits": 4}, "torch_dtype": "float16"}
    >>> formats(ConfigKeys(table, "config.json"), False)
    {'weight_dtype': 'int4'}
    >>> table = {"quantization_config": {"quant_method": "mxfp4"}, "dtype": "bfloat16"}
    >>> formats(ConfigKeys(table, "config.json"), True)
    {'weight_dtype': 'bf16', 'expert_dtype': 'mxfp4'}
    """
    plain = _PLAIN.get(str(keys.get("torch_dtype") or keys.get("dtype") or "bfloat16"))
    if plain is None:
        key = "torch_dtype" if keys.get("torch_dtype") else "dtype"
        raise keys.refuse(
            key, _PLAIN, "give the checkpoint's weight_dtype as a quantization_config"
        )
    table = keys.get("quantization_config")
    if not table:
        return {"weight_dtype": plain}
    if not isinstance(table, Mapping):
        raise keys.refuse("quantization_config", ["a table"], _REMEDY)
    quantised, only_experts = _weights(keys, table), _leaves_attention(table)
    cache: dict[str, Dtype] = {"kv_dtype": "fp8"} if _has_fp8_cache(table) else {}
    if not only_experts:
        return {"weight_dtype": quantised, **cache}
    if not has_experts:
        raise keys.refuse("quantization_config", ["one that covers the attention too"], _REMEDY)
    return {"weight_dtype": plain, "expert_dtype": quantised, **cache}


def _weights(keys: ConfigKeys, table: Mapping[str, Any]) -> Dtype:
    """Return the format of what is quantised."""
    method = str(table.get("quant_method", "")).removesuffix("_marlin")
    algorithm = str(table.get("quant_algo", "")).lower()
    if method == "mxfp4" or "mxfp4" in str(_format(table)):
        return "mxfp4"
    if method in ("fp8", "fbgemm_fp8") or algorithm == "fp8":
        return "fp8"
    if algorithm == "nvfp4":
        return "nvfp4"
    kind, bits = (
        _kind_and_bits(table) if method not in ("awq", "gptq") else ("int", table.get("bits"))
    )
    if method not in _METHODS or (kind, bits) not in _BITS:
        right = [f"of one of {', '.join(_METHODS)}, with 4 or 8 bits"]
        raise keys.refuse("quantization_config", right, _REMEDY)
    return _BITS[kind, bits]  # type: ignore[index]


def _groups(table: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = table.get("config_groups")
    yield from (group for group in (groups or {}).values() if isinstance(group, Mapping))


def _format(table: Mapping[str, Any]) -> str:
    return " ".join(str(part.get("format", "")) for part in (table, *_groups(table)))


def _kind_and_bits(table: Mapping[str, Any]) -> tuple[str, int]:
    """Return number type and bits of the first group of llm-compressor's weights."""
    weights = next((group.get("weights") or {} for group in _groups(table)), {})
    return str(weights.get("type", "")), int(weights.get("num_bits") or 0)


def _leaves_attention(table: Mapping[str, Any]) -> bool:
    """Return whether the attention's matrices stay as they were; mxfp4 has always left them so."""
    skipped = [str(name) for key in _SKIPPED for name in (table.get(key) or [])]
    ends = ("self_attn", "self_attn*", "self_attn.*", "self_attn.o_proj")
    left = any(name.replace("\\", "").endswith(ends) for name in skipped)
    return left or table.get("quant_method") == "mxfp4"


def _has_fp8_cache(table: Mapping[str, Any]) -> bool:
    scheme = table.get("kv_cache_scheme") or table.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        return (scheme.get("type"), scheme.get("num_bits")) == ("float", 8)
    return str(scheme).lower() == "fp8"
