"""Model configuration: a catalogue shape, a toy for the CPU, or a checkpoint's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from busdoor.catalog import ModelShape, model
from busdoor.core.registry import checked

# What distinguishes an architecture from Llama, in the shape's fields.
_FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "Qwen2ForCausalLM": {"bias": "qkv"},
    "Qwen3ForCausalLM": {"qk_norm": True},
}
_RUNS = {
    "num_experts": (1,),
    "mlp": ("gated",),
    "bias": ("none", "qkv"),
    "norm_bias": (False,),
    "learned_positions": (0,),
    "sliding_window": (0,),
    "kv_lora_rank": (0,),
    "norms_per_layer": (2,),
}
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 257,
    "max_position_embeddings": 4096,
}
TINY = {
    "tiny-llama": ModelShape(name="tiny-llama", **_TINY),
    "tiny-qwen2": ModelShape(name="tiny-qwen2", bias="qkv", **_TINY),
    "tiny-qwen3": ModelShape(name="tiny-qwen3", qk_norm=True, tie_word_embeddings=True, **_TINY),
}


@dataclass(frozen=True)
class ModelConfig:
    """A Llama, Mistral, Qwen2 or Qwen3: shape, and constants that do not change its speed.

    `rope_theta` is Llama 3's unless a checkpoint has another; `rope_scaling` Llama 3.1's scaling of
    the low frequencies, with the keys of config.json; empty for none. Without a checkpoint's
    `folder` the weights are random.
    """

    shape: ModelShape
    rope_theta: float = 500_000.0
    rope_scaling: Mapping[str, float] = field(default_factory=dict)
    rms_norm_eps: float = 1e-5
    folder: Path | None = None

    def __post_init__(self) -> None:
        shape = self.shape
        wrong = [
            f"{name} = {value!r}"
            for name, runs in _RUNS.items()
            if (value := getattr(shape, name)) not in runs
        ]
        if wrong:
            raise ValueError(
                f"{shape.name} has {', '.join(wrong)}; the engine runs models shaped as Llama, "
                f"Mistral, Qwen2 or Qwen3"
            )

    def inverse_frequencies(self) -> torch.Tensor:
        """Return the radians a position rotates each pair of dimensions: float64, [head_dim / 2].

        >>> ModelConfig(TINY["tiny-llama"], rope_theta=10000.0).inverse_frequencies()[:2]
        tensor([1.0000, 0.3162], dtype=torch.float64)
        """
        head_dim = self.shape.head_dim
        plain = self.rope_theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        if not self.rope_scaling:
            return plain
        factor, low, high, old = (self.rope_scaling[key] for key in _LLAMA3)
        # Waves shorter than old / high stay, those longer than old / low are scaled, between them
        # linearly less.
        kept = ((old * plain / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / factor)


def find_model(name: str) -> ModelConfig:
    """Return the model of a name of the catalogue or of `TINY`, or of a checkpoint's folder.

    Raises ValueError if there is no such model, or the engine cannot run it.

    >>> find_model("tiny-qwen3").shape.qk_norm, find_model("qwen3-0.6b").shape.num_hidden_layers
    (True, 28)
    """
    if not name:
        raise ValueError("--model is empty; give a model's name, or a checkpoint's folder")
    folder = Path(name)
    if (folder / "config.json").is_file():
        return read_config(folder)
    if name in TINY:
        return ModelConfig(TINY[name])
    if folder.exists():
        raise ValueError(
            f"--model {name}: not a checkpoint's folder, as it has no config.json; give one that "
            f"has"
        )
    if name.startswith((".", "/", "~")):
        raise ValueError(
            f"--model {name}: there is no such folder; give a checkpoint's folder, or a model's "
            f"name"
        )
    try:
        shape = model(name)
    except ValueError as error:
        raise ValueError(
            f"{error}; on a CPU there are {', '.join(TINY)} too, or give a checkpoint's folder"
        ) from None
    return ModelConfig(shape)


def read_config(folder: Path) -> ModelConfig:
    """Read a Hugging Face config.json.

    Raises ValueError if the model is of another family, or a field is missing.
    """
    found = _read_json(folder / "config.json")
    family = next(iter(found.get("architectures") or ["none"]))
    if family not in _FAMILIES:
        raise ValueError(
            f"{folder}/config.json: architectures = [{family!r}]; the engine runs "
            f"{', '.join(_FAMILIES)}"
        )
    _check_numbers(found, folder / "config.json")
    heads = found["num_attention_heads"]
    fields = {
        "name": folder.resolve().name,
        "head_dim": found.get("head_dim") or found["hidden_size"] // heads,
        "num_key_value_heads": found.get("num_key_value_heads", heads),
        "tie_word_embeddings": found.get("tie_word_embeddings", False),
        "bias": "all" if found.get("attention_bias") or found.get("mlp_bias") else "none",
        **_window(found),
        **_FAMILIES[family],
        **{key: found[key] for key in _TINY if key not in ("head_dim", "num_key_value_heads")},
    }
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(found.get(key) or {}, Mapping):
            raise ValueError(f"{folder}/config.json: {key} is {found[key]!r}; it must be a table")
    rope = found.get("rope_parameters") or {
        **(found.get("rope_scaling") or {}),
        "rope_theta": found.get("rope_theta", 1e4),
    }
    shape = checked(ModelShape, fields, f"{folder}/config.json")
    return ModelConfig(
        shape, rope["rope_theta"], _scaling(rope, folder), found["rms_norm_eps"], folder
    )


def _window(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a window that hides keys, if there is one; Qwen's files name one that is not used."""
    window = found.get("sliding_window") if found.get("use_sliding_window", True) else None
    if not window or window >= found["max_position_embeddings"]:
        return {}
    return {"sliding_window": window, "num_window_layers": found["num_hidden_layers"]}


def _read_json(file: Path) -> dict[str, Any]:
    """Read a config.json."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("architectures", []), list):
        raise ValueError(
            f"{file} is not a model's configuration; it must be a table, with a list of "
            f"architectures"
        )
    return found


def _check_numbers(found: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError if a number is missing that a shape is made of."""
    for key in (*_TINY, "rms_norm_eps"):
        value = found.get(key)
        if key not in ("head_dim", "num_key_value_heads") and (
            isinstance(value, bool) or not _positive(value)
        ):
            raise ValueError(f"{file}: {key} is {value}; it must be a number above 0")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _scaling(rope: Mapping[str, Any], folder: Path) -> Mapping[str, float]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(
            f"{folder}/config.json: rope_type = {kind!r}; the engine supports default and llama3"
        )
    for key in _LLAMA3 if kind == "llama3" else ():
        if not _positive(rope.get(key)):
            raise ValueError(
                f"{folder}/config.json: {key} of the rope is {rope.get(key)}; it must be a number "
                f"above 0"
            )
    return rope if kind == "llama3" else {}
