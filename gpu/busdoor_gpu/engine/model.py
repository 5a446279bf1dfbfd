"""The forward pass over a flat line of tokens, of any number of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, linear

from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.footprint import check_weights
from busdoor_gpu.engine.model_config import ModelConfig, find_model
from busdoor_gpu.engine.weights import Weights, load_weights, random_weights
from busdoor_gpu.kernels.cache import Caches
from busdoor_gpu.kernels.rope_kv_write import rope_table
from busdoor_gpu.kernels.slot_table import StepInputs

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A model on its device; `rope` is float32 [positions, head_dim], see `rope_table`.

    `kv_dtype` is the format of its KV cache: as the weights, or float8_e4m3fn.
    """

    config: ModelConfig
    weights: Weights
    rope: torch.Tensor
    kv_dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.weights.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return self.weights.embedding.dtype

    @property
    def kv_format(self) -> str | None:
        """Name of a KV cache's own format; None where it is the weights'."""
        return "fp8" if self.kv_dtype.itemsize == 1 else None

    def forward(
        self,
        backend: Backend,
        inputs: StepInputs,
        caches: Sequence[Caches],
        attend: Attention,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute a step's tokens, write their keys and values, and pick the next tokens.

        `attend` gives the attention of query [num_tokens, heads, head_dim] over one layer's K and
        V. Returns int32, a token after each of the indices `last`; by default after all.
        """
        weights, eps = self.weights, self.config.rms_norm_eps
        residual = embedding(inputs.input_ids, weights.embedding)
        x = backend.rmsnorm(residual, weights.layers[0].input_norm, eps)
        next_norms = [layer.input_norm for layer in weights.layers[1:]] + [weights.norm]
        for layer, cache, next_norm in zip(weights.layers, caches, next_norms, strict=True):
            qkv = linear(x, layer.qkv, layer.qkv_bias)
            query = backend.rope_kv_write(
                qkv, inputs.positions, inputs.slot_mapping, self.rope, cache, layer.head_norm
            )
            x = linear(attend(query, *cache).flatten(1), layer.attention_out)
            x = backend.rmsnorm(x, layer.mlp_norm, eps, residual)
            x = linear(backend.swiglu(linear(x, layer.gate_up)), layer.down)
            x = backend.rmsnorm(x, next_norm, eps, residual)
        return backend.argmax(linear(x if last is None else x[last], weights.lm_head))  # type: ignore[no-any-return]


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the default type of weights and KV cache: float32 on a CPU, bfloat16 on a GPU.

    >>> default_dtype(torch.device("cpu"))
    torch.float32
    """
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def load_model(
    model: str | ModelConfig,
    device: str | torch.device = "cuda",
    dtype: torch.dtype | None = None,
    seed: int = 0,
    kv_dtype: torch.dtype | None = None,
) -> Model:
    """Load a model (a name or a checkpoint's folder, see `find_model`) onto a device.

    The dtype is by default bfloat16 on a GPU and float32 on a CPU, that of the KV cache as the
    weights'; `seed` is of random weights.
    Raises ValueError if there is no such model, or the machine's memory cannot hold it.

    >>> load_model("tiny-llama", "cpu").weights.layers[0].qkv.shape
    torch.Size([128, 64])
    """
    config = find_model(model) if isinstance(model, str) else model
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device(
            "cuda", torch.cuda.current_device() if device.index is None else device.index
        )
        torch.cuda.set_device(device)
    dtype = dtype or default_dtype(device)
    if device.type == "cpu":
        check_weights(config, dtype)
    read = config.folder is not None and any(config.folder.glob("*.safetensors"))
    weights = (
        load_weights(config, device, dtype) if read else random_weights(config, device, dtype, seed)
    )
    rope = rope_table(config.inverse_frequencies(), config.shape.max_position_embeddings)
    return Model(config, weights, rope.to(device), kv_dtype or dtype)
