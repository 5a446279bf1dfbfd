"""Shapes of models: what they weigh, what a token costs, how much KV cache it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import BYTES_PER_VALUE, Dtype, lm_head_dtype
from busdoor.catalog.tables import complete, find, read_tables
from busdoor.core.names import Label
from busdoor.core.registry import checked


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelShape:
    """A decoder-only transformer, in the words of a Hugging Face `config.json`.

    Parameters
    ----------
    name : str
        Name in the catalogue.
    num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads, head_dim : int
        Layers, width, query heads, KV heads, and width of a head.
    intermediate_size : int
        Width of the MLP; of one expert in a mixture.
    vocab_size, max_position_embeddings : int
        Tokens in the vocabulary; the longest context.
    tie_word_embeddings : bool
        Whether the LM head is the embedding table.
    num_experts, num_experts_per_tok : int
        Experts of a layer, and how many of them a token visits; 1 and 1 is a dense model.
    mlp : {"gated", "plain"}
        Three matrices (SwiGLU) or two (OPT, GPT).
    bias : {"none", "qkv", "all"}
        Which matrices have a bias.
    norm_bias, qk_norm : bool
        LayerNorm (with bias) instead of RMSNorm; a norm on queries and keys.
    learned_positions : int
        Rows of a learned table of positions; 0 for rotary positions.
    aliases : tuple of str
        Other names.
    source : str
        Where the shape is from.

    Examples
    --------
    >>> llama = model("llama-3.1-8b")
    >>> llama.num_parameters, llama.kv_bytes_per_token() / 1024
    (8030261248, 128.0)
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
    mlp: Literal["gated", "plain"] = "gated"
    bias: Literal["none", "qkv", "all"] = "none"
    norm_bias: bool = False
    qk_norm: bool = False
    learned_positions: NonNegativeInt = 0
    aliases: tuple[str, ...] = ()
    source: str = Field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} has to be a multiple of "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok = {self.num_experts_per_tok} > num_experts = {self.num_experts}")

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token and position tables, of which a step reads a row a token."""
        return (self.vocab_size + self.learned_positions) * self.hidden_size

    @property
    def lm_head_parameters(self) -> int:
        """Parameters that the LM head multiplies, whether or not it shares them with the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def mlp_parameters(self) -> int:
        """Parameters of one MLP, or of one expert, of one layer."""
        matrices = 3 if self.mlp == "gated" else 2
        biases = (matrices - 1) * self.intermediate_size + self.hidden_size if self.bias == "all" else 0
        return matrices * self.hidden_size * self.intermediate_size + biases

    @property
    def attention_parameters(self) -> int:
        """Parameters of the attention of one layer."""
        q, kv = self.num_attention_heads * self.head_dim, 2 * self.num_key_value_heads * self.head_dim
        biases = {"none": 0, "qkv": q + kv, "all": q + kv + self.hidden_size}[self.bias]
        return self.hidden_size * (2 * q + kv) + biases + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def dense_parameters(self) -> int:
        """Parameters that every step reads whatever its tokens: all but embeddings, LM head and experts."""
        norm = self.hidden_size * (2 if self.norm_bias else 1)
        layer = self.attention_parameters + 2 * norm
        layer += self.hidden_size * self.num_experts if self.num_experts > 1 else self.mlp_parameters
        return self.num_hidden_layers * layer + norm

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert in all layers; 0 in a dense model."""
        return self.num_hidden_layers * self.mlp_parameters if self.num_experts > 1 else 0

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        head = 0 if self.tie_word_embeddings else self.lm_head_parameters
        return self.embedding_parameters + head + self.dense_parameters + self.num_experts * self.expert_parameters

    @property
    def num_active_parameters(self) -> int:
        """Parameters that one token meets.

        Examples
        --------
        >>> round(model("mixtral-8x7b").num_active_parameters / 1e9, 1)
        12.9
        """
        idle = (self.num_experts - self.num_experts_per_tok) * self.expert_parameters
        return self.num_parameters - idle

    @property
    def attention_flop_per_pair(self) -> int:
        """FLOP of one query-key pair in all layers: a multiply and an add, twice (scores, values), in every head."""
        return 4 * self.num_hidden_layers * self.num_attention_heads * self.head_dim

    def weight_bytes(self, dtype: Dtype = "bf16") -> float:
        """Bytes of all weights; embeddings and LM head keep 16 bits in a quantised model.

        Examples
        --------
        >>> round(model("llama-3.1-8b").weight_bytes() / 2**30, 2)     # vLLM reports 14.96 GiB
        14.96
        """
        head = 0 if self.tie_word_embeddings else self.lm_head_parameters
        wide = self.embedding_parameters + head
        return wide * BYTES_PER_VALUE[lm_head_dtype(dtype)] + (self.num_parameters - wide) * BYTES_PER_VALUE[dtype]

    def kv_bytes_per_token(self, dtype: Dtype = "bf16", tp: int = 1) -> float:
        """Bytes of keys and values of one token on one of `tp` GPUs; KV heads that are too few are held twice.

        Examples
        --------
        >>> model("opt-13b").kv_bytes_per_token("fp16")      # as the vLLM paper says
        819200.0
        """
        heads = max(1, self.num_key_value_heads // tp)
        return 2 * self.num_hidden_layers * heads * self.head_dim * BYTES_PER_VALUE[dtype]

    def check_tp(self, tp: int) -> None:
        """Raise ValueError if the heads cannot be dealt out to `tp` GPUs evenly."""
        kv_heads = self.num_key_value_heads
        if self.num_attention_heads % tp or (kv_heads % tp and tp % kv_heads):
            raise ValueError(
                f"tp = {tp} cannot share out {self.name}'s {self.num_attention_heads} query and {kv_heads} KV heads "
                f"evenly; use a tp that divides {self.num_attention_heads}"
            )


def model(name: str | Mapping[str, Any] | ModelShape) -> ModelShape:
    """Look up a model, or make one of a table.

    Parameters
    ----------
    name : str, mapping or ModelShape
        A name or alias in any case, with or without its owner; or a table of `ModelShape`'s fields, filled from the
        catalogue where its `name` is known.

    Raises
    ------
    ValueError
        If the name is not known (the message has the nearest one), or the table is wrong.

    Examples
    --------
    >>> model("meta-llama/Llama-3.1-8B-Instruct").name
    'llama-3.1-8b'
    >>> model("qwen3-8")
    Traceback (most recent call last):
    ValueError: 'qwen3-8' is not a model of the catalogue; did you mean 'qwen3-8b'? (known: ...)
    """
    if isinstance(name, ModelShape):
        return name
    if isinstance(name, Mapping):
        return checked(ModelShape, complete("models.toml", name), "[model]")
    return checked(ModelShape, find("models.toml", "a model of the catalogue", name), "[model]")


def model_names() -> list[str]:
    """Names of the catalogue's models."""
    return list(read_tables("models.toml"))
