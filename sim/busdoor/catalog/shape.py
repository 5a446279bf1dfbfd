"""The shape of a model: what it weighs, what a token costs, how much KV cache it leaves."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import BYTES_PER_VALUE, Dtype, lm_head_dtype
from busdoor.catalog.model_fields import ModelFields


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelShape(ModelFields):
    """A decoder-only transformer; its fields are those of `ModelFields`.

    Examples
    --------
    >>> from busdoor.catalog import model
    >>> llama = model("llama-3.1-8b")
    >>> llama.num_parameters, llama.kv_bytes_per_token() / 1024
    (8030261248, 128.0)
    """

    @property
    def num_expert_layers(self) -> int:
        """Layers with a mixture of experts."""
        return self.num_hidden_layers - self.num_dense_layers if self.num_experts > 1 else 0

    @property
    def expert_width(self) -> int:
        """Width of one routed expert."""
        return self.moe_intermediate_size or self.intermediate_size

    @property
    def mlp_widths(self) -> int:
        """Widths of the MLPs that one token meets, added over the layers."""
        meets = self.num_experts_per_tok * self.expert_width + self.shared_intermediate_size
        dense_layers = self.num_hidden_layers - self.num_expert_layers
        return dense_layers * self.intermediate_size + self.num_expert_layers * meets

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token and position tables, of which a step reads one row per token."""
        return (self.vocab_size + self.learned_positions) * self.hidden_size

    @property
    def lm_head_parameters(self) -> int:
        """Parameters that the LM head multiplies, shared with the embedding or not."""
        return self.vocab_size * self.hidden_size

    def mlp_parameters(self, width: int) -> int:
        """Parameters of an MLP (or expert) of a width, in one layer."""
        matrices = 3 if self.mlp == "gated" else 2
        biases = (matrices - 1) * width + self.hidden_size if self.bias == "all" else 0
        return (matrices * self.hidden_size * width + biases) if width else 0

    @property
    def attention_parameters(self) -> int:
        """Parameters of the attention of one layer."""
        if self.kv_lora_rank:
            return self._latent_attention_parameters
        q = self.num_attention_heads * self.head_dim
        kv = 2 * self.num_key_value_heads * self.head_dim
        output = self.hidden_size if self.bias in ("attention", "all") else 0
        biases = 0 if self.bias == "none" else q + kv + output
        return self.hidden_size * (2 * q + kv) + biases + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def _latent_attention_parameters(self) -> int:
        """Return queries (compressed and expanded, or neither), keys and values, output; norms."""
        heads, latent = self.num_attention_heads, self.kv_lora_rank
        queries = heads * self.head_dim
        rank = self.q_lora_rank
        down = rank * (self.hidden_size + 1 + queries) if rank else self.hidden_size * queries
        nope = self.head_dim - self.qk_rope_head_dim
        compressed = self.hidden_size * (latent + self.qk_rope_head_dim) + latent
        return (
            down
            + compressed
            + heads * (latent * (nope + self.v_head_dim) + self.v_head_dim * self.hidden_size)
        )

    @property
    def dense_parameters(self) -> int:
        """Parameters every step reads whatever its tokens: no embeddings, LM head or experts."""
        norm = self.hidden_size * (2 if self.norm_bias else 1)
        router = self.hidden_size * self.num_experts
        layers, expert_layers = self.num_hidden_layers, self.num_expert_layers
        return (
            layers * (self.attention_parameters + self.norms_per_layer * norm)
            + (layers - expert_layers) * self.mlp_parameters(self.intermediate_size)
            + expert_layers * (router + self.mlp_parameters(self.shared_intermediate_size))
            + norm
        )

    @property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert in all layers; 0 in a dense model."""
        return self.num_expert_layers * self.mlp_parameters(self.expert_width)

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        head = 0 if self.tie_word_embeddings else self.lm_head_parameters
        return (
            self.embedding_parameters
            + head
            + self.dense_parameters
            + self.num_experts * self.expert_parameters
        )

    @property
    def num_active_parameters(self) -> int:
        """Parameters that one token meets.

        Examples
        --------
        >>> from busdoor.catalog import model
        >>> round(model("mixtral-8x7b").num_active_parameters / 1e9, 1)
        12.9
        """
        idle = (self.num_experts - self.num_experts_per_tok) * self.expert_parameters
        return self.num_parameters - idle

    @property
    def attention_flop_per_pair(self) -> int:
        """FLOP of one query-key pair in all layers when a prompt is computed.

        A multiply and an add for each value of the key (scores) and of the value, in every head.
        """
        width = self.head_dim + (self.v_head_dim or self.head_dim)
        return 2 * self.num_hidden_layers * self.num_attention_heads * width

    @property
    def decode_flop_per_pair(self) -> int:
        """FLOP of one query-key pair in all layers when a token is decoded.

        Latent attention then multiplies every head by the compressed keys and values themselves
        (DeepSeek-V2, arXiv 2405.04434, section 2.1.2: the expansion is absorbed into the queries).

        Examples
        --------
        >>> from busdoor.catalog import model
        >>> model("llama-3.1-8b").decode_flop_per_pair == model("llama-3.1-8b").attention_flop_per_pair
        True
        """
        if not self.kv_lora_rank:
            return self.attention_flop_per_pair
        width = 2 * self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.num_hidden_layers * self.num_attention_heads * width

    @property
    def window_share(self) -> float:
        """Share of the layers that attend to no more than `sliding_window` tokens."""
        return self.num_window_layers / self.num_hidden_layers

    def weight_bytes(self, dtype: Dtype | None = None) -> float:
        """Bytes of all weights; embeddings and LM head keep 16 bits in a quantised model.

        Parameters
        ----------
        dtype : str, optional
            Format of the linear layers, and of experts that have none of their own; the
            checkpoint's unless given.

        Examples
        --------
        >>> from busdoor.catalog import model
        >>> round(model("llama-3.1-8b").weight_bytes() / 2**30, 2)     # vLLM reports 14.96 GiB
        14.96
        """
        dtype = dtype or self.weight_dtype
        head = 0 if self.tie_word_embeddings else self.lm_head_parameters
        wide = (self.embedding_parameters + head) * BYTES_PER_VALUE[lm_head_dtype(dtype)]
        experts = (
            self.num_experts * self.expert_parameters * BYTES_PER_VALUE[self.expert_dtype or dtype]
        )
        return wide + self.dense_parameters * BYTES_PER_VALUE[dtype] + experts

    def kv_dtype_with(self, weight_dtype: Dtype) -> Dtype:
        """Format of the KV cache under weights of a format, where no other is asked for."""
        return self.kv_dtype or lm_head_dtype(weight_dtype)

    def kv_bytes_per_token(
        self, dtype: Dtype = "bf16", tp: int = 1, context_tokens: float | None = None
    ) -> float:
        """Bytes of keys and values of one token on one of `tp` GPUs.

        KV heads that are too few are held on several GPUs, compressed ones on all.

        Parameters
        ----------
        dtype : str
            Format of the KV cache.
        tp : int
            GPUs that share the model.
        context_tokens : float, optional
            Length of the request that the token is one of: windowed layers keep no more than their
            window of it, so that a token takes less of a long one. Without it, all layers keep all.

        Examples
        --------
        >>> from busdoor.catalog import model
        >>> model("opt-13b").kv_bytes_per_token("fp16")      # as the vLLM paper says
        819200.0
        """
        values = self.kv_lora_rank + self.qk_rope_head_dim
        if not self.kv_lora_rank:
            values = 2 * max(1, self.num_key_value_heads // tp) * self.head_dim
        kept = 1.0
        if context_tokens and self.sliding_window:
            kept = 1 - self.window_share * (1 - min(1.0, self.sliding_window / context_tokens))
        return self.num_hidden_layers * values * BYTES_PER_VALUE[dtype] * kept

    def to_table(self) -> dict[str, Any]:
        """Return the fields that are not their defaults, as a table of a configuration has them.

        Examples
        --------
        >>> from busdoor.catalog import model
        >>> table = model("qwen3-8b").to_table()
        >>> table["qk_norm"], "kv_lora_rank" in table, model(table) == model("qwen3-8b")
        (True, False, True)
        """
        defaults = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}

    def check_tp(self, tp: int) -> None:
        """Raise ValueError if the heads cannot be dealt out to `tp` GPUs evenly."""
        kv_heads = tp if self.kv_lora_rank else self.num_key_value_heads  # every GPU has the latent
        if self.num_attention_heads % tp or (kv_heads % tp and tp % kv_heads):
            raise ValueError(
                f"tp = {tp} cannot share out {self.name}'s {self.num_attention_heads} query and "
                f"{self.num_key_value_heads} KV heads evenly; use a tp that divides "
                f"{self.num_attention_heads}"
            )
