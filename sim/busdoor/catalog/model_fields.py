"""What the shape of a model is made of, in the words of a Hugging Face `config.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import Dtype
from busdoor.core.names import Label


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelFields:
    """The fields of a `ModelShape`, checked.

    Parameters
    ----------
    name : str
        Name in the catalogue.
    num_hidden_layers : int
        Layers.
    hidden_size : int
        Width of the model, in numbers per token.
    num_attention_heads : int
        Query heads.
    num_key_value_heads : int
        KV heads.
    head_dim : int
        Width of a head, of queries and keys.
    intermediate_size : int
        Width of a dense layer's MLP; of one expert too, unless `moe_intermediate_size` is given.
    vocab_size : int
        Tokens in the vocabulary.
    max_position_embeddings : int
        Longest context, in tokens.
    tie_word_embeddings : bool
        Whether the LM head is the embedding table.
    num_experts : int
        Routed experts of a layer; 1 is a dense model.
    num_experts_per_tok : int
        How many of them a token visits.
    moe_intermediate_size : int
        Width of one routed expert.
    shared_intermediate_size : int
        Width of all shared experts together, which every token visits.
    num_dense_layers : int
        Layers of a mixture of experts that have one MLP instead.
    kv_lora_rank : int
        Multi-head latent attention: width of the compressed keys and values; 0: no such attention.
    q_lora_rank : int
        Multi-head latent attention: width of the compressed queries; 0: not compressed.
    qk_rope_head_dim : int
        Multi-head latent attention: width of the rotary part of a head.
    v_head_dim : int
        Multi-head latent attention: width of a head's values.
    sliding_window : int
        Tokens that a windowed layer attends to.
    num_window_layers : int
        Layers that are windowed.
    mlp : {"gated", "plain"}
        Three matrices (SwiGLU) or two (OPT, GPT).
    bias : {"none", "qkv", "attention", "all"}
        Which matrices have a bias; "attention" has one on its output too.
    norms_per_layer : int
        2, or 4 where attention and MLP are normed on both sides (Gemma), or 1 (Phi-2).
    norm_bias : bool
        LayerNorm (with bias) instead of RMSNorm.
    qk_norm : bool
        Whether queries and keys are normed.
    learned_positions : int
        Rows of a learned table of positions; 0 for rotary positions.
    weight_dtype : str
        Format of the checkpoint's linear layers.
    expert_dtype : str
        Format of its routed experts, where theirs is another.
    kv_dtype : str
        Format of the KV cache, where it is neither 16-bit nor asked for.
    aliases : tuple of str
        Other names.
    source : str
        Where the shape is from.

    """

    name: Label
    num_hidden_layers: PositiveInt
    hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    tie_word_embeddings: bool = False
    num_experts: PositiveInt = 1
    num_experts_per_tok: PositiveInt = 1
    moe_intermediate_size: NonNegativeInt = 0
    shared_intermediate_size: NonNegativeInt = 0
    num_dense_layers: NonNegativeInt = 0
    kv_lora_rank: NonNegativeInt = 0
    q_lora_rank: NonNegativeInt = 0
    qk_rope_head_dim: NonNegativeInt = 0
    v_head_dim: NonNegativeInt = 0
    sliding_window: NonNegativeInt = 0
    num_window_layers: NonNegativeInt = 0
    mlp: Literal["gated", "plain"] = "gated"
    bias: Literal["none", "qkv", "attention", "all"] = "none"
    norms_per_layer: PositiveInt = 2
    norm_bias: bool = False
    qk_norm: bool = False
    learned_positions: NonNegativeInt = 0
    weight_dtype: Dtype = "bf16"
    expert_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    aliases: tuple[str, ...] = ()
    source: str = Field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok = {self.num_experts_per_tok} > num_experts = "
                f"{self.num_experts}"
            )
        for part in ("num_dense_layers", "num_window_layers"):
            if getattr(self, part) > self.num_hidden_layers:
                raise ValueError(
                    f"{part} = {getattr(self, part)} > num_hidden_layers = {self.num_hidden_layers}"
                )
        if bool(self.sliding_window) != bool(self.num_window_layers):
            raise ValueError(
                f"sliding_window = {self.sliding_window} and num_window_layers = "
                f"{self.num_window_layers}: both must be above 0, or neither"
            )
        if self.kv_lora_rank and not (
            self.v_head_dim and 0 < self.qk_rope_head_dim < self.head_dim
        ):
            raise ValueError(
                f"kv_lora_rank = {self.kv_lora_rank} needs v_head_dim, and a qk_rope_head_dim "
                f"below head_dim = {self.head_dim}"
            )
