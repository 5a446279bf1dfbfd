"""Weights on the device: drawn at random, or read from safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from busdoor_gpu.engine.model_config import ModelConfig
from busdoor_gpu.kernels.rope_kv_write import HeadNorm

# Returns the tensors of these names (Hugging Face's, without "model.") and shapes, concatenated
# along dimension 0.
Source = Callable[[Sequence[tuple[str, tuple[int, ...]]]], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer: matrices [out, in], norms [width]; those multiplying one input are one."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    head_norm: HeadNorm | None
    attention_out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True)
class Weights:
    """All weights of a model; `lm_head` is `embedding` if they are tied."""

    embedding: torch.Tensor
    layers: list[Layer]
    norm: torch.Tensor
    lm_head: torch.Tensor


def random_weights(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Weights:
    """Draw weights on the device; the same seed on the same device gives the same weights.

    Matrices keep the scale of their input (a standard deviation of in^-1/2) and norms are near 1,
    so that hidden states neither vanish nor grow, and the greedy token depends on the whole
    context.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def draw(parts: Sequence[tuple[str, tuple[int, ...]]]) -> torch.Tensor:
        name, shape = parts[0]
        made = torch.empty(
            sum(part[1][0] for part in parts), *shape[1:], device=device, dtype=dtype
        )
        if "norm" in name:
            return made.normal_(1.0, 0.1, generator=generator)
        if name.endswith("bias"):
            return made.normal_(0.0, 0.1, generator=generator)
        return made.normal_(0.0, 1.0 if "embed" in name else shape[1] ** -0.5, generator=generator)

    return _build(config, draw)


def load_weights(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Weights:
    """Read a checkpoint's weights: one file model.safetensors, or several with an index.

    Raises ValueError if a tensor is missing, or its shape differs from config.json's.
    """
    from safetensors import safe_open

    folder = config.folder
    assert folder is not None
    where = _files(folder)

    def read(parts: Sequence[tuple[str, tuple[int, ...]]]) -> torch.Tensor:
        made = torch.empty(
            sum(part[1][0] for part in parts), *parts[0][1][1:], device=device, dtype=dtype
        )
        for (name, shape), part in zip(
            parts, torch.split(made, [part[1][0] for part in parts]), strict=True
        ):
            full = name if name == "lm_head.weight" else f"model.{name}"
            if full not in where:
                raise ValueError(
                    f"{folder} has no tensor {full!r}; is it a checkpoint of {config.shape.name}?"
                )
            with safe_open(where[full], framework="pt") as file:
                tensor = file.get_tensor(full)
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{where[full]}: {full!r} has shape {tuple(tensor.shape)}; by config.json it "
                    f"must be {shape}"
                )
            part.copy_(tensor)
        return made

    return _build(config, read)


def _files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        return {
            name: folder / file
            for name, file in json.loads(index.read_text())["weight_map"].items()
        }
    single = folder / "model.safetensors"
    if not single.exists():
        raise ValueError(f"{folder} has neither model.safetensors nor {index.name}")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def _build(config: ModelConfig, source: Source) -> Weights:
    shape = config.shape
    hidden, wide, head = shape.hidden_size, shape.intermediate_size, shape.head_dim
    q, kv = shape.num_attention_heads * head, shape.num_key_value_heads * head

    def layer(i: int) -> Layer:
        def get(*parts: tuple[str, tuple[int, ...]], kind: str = "weight") -> torch.Tensor:
            return source([(f"layers.{i}.{name}.{kind}", size) for name, size in parts])

        projections = [(f"self_attn.{x}_proj", n) for x, n in (("q", q), ("k", kv), ("v", kv))]
        return Layer(
            input_norm=get(("input_layernorm", (hidden,))),
            qkv=get(*((name, (n, hidden)) for name, n in projections)),
            qkv_bias=get(*((name, (n,)) for name, n in projections), kind="bias")
            if shape.bias == "qkv"
            else None,
            head_norm=HeadNorm(
                get(("self_attn.q_norm", (head,))),
                get(("self_attn.k_norm", (head,))),
                config.rms_norm_eps,
            )
            if shape.qk_norm
            else None,
            attention_out=get(("self_attn.o_proj", (hidden, q))),
            mlp_norm=get(("post_attention_layernorm", (hidden,))),
            gate_up=get(("mlp.gate_proj", (wide, hidden)), ("mlp.up_proj", (wide, hidden))),
            down=get(("mlp.down_proj", (hidden, wide))),
        )

    embedding = source([("embed_tokens.weight", (shape.vocab_size, hidden))])
    layers = [layer(i) for i in range(shape.num_hidden_layers)]
    norm = source([("norm.weight", (hidden,))])
    tied = shape.tie_word_embeddings
    return Weights(
        embedding,
        layers,
        norm,
        embedding if tied else source([("lm_head.weight", (shape.vocab_size, hidden))]),
    )
