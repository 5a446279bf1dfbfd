"""Settings of the policies that admit at every iteration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from busdoor.kv.config import KVConfig
from busdoor.policies.config import BuiltInConfig, QueueFields, settings
from busdoor_workloads import Trace

Share = Annotated[float, Field(ge=0, lt=1)]

# As MAX_NUM_SEQS of `busdoor.policies.config`, what `vllm serve` takes where nothing is said.
MAX_NUM_BATCHED_TOKENS = 8192
# Share of the blocks that vLLM V0's block manager kept free, against preempting at once what it had
# just admitted.
WATERMARK = 0.01
# What text-generation-launcher takes where nothing is said (TGI 2 and 3, launcher/src/main.rs); TGI
# 1 waited for more, with a ratio of 1.2.
WAITING_SERVED_RATIO = 0.3
MAX_WAITING_TOKENS = 20
# The prefill budget of TGI 1; TGI 2 and 3 take 50 tokens beyond the longest prompt that is served.
MAX_BATCH_PREFILL_TOKENS = 4096
PREFILL_EDGE_TOKENS = 50
# TensorRT-LLM's default, whatever the GPU (tensorrt_llm.llmapi, BuildConfig.max_num_tokens).
MAX_NUM_TOKENS = 8192
# Share of free blocks below which transformers' FIFOScheduler begins no prompt beside others (5.19,
# scheduler.py).
SAFETY_MARGIN = 0.15


def check_budget(config: BuiltInConfig) -> None:
    """Refuse a token budget in which not every running request could decode."""
    for name in ("max_num_batched_tokens", "max_num_tokens"):
        budget = getattr(config, name, None)
        if budget is not None and budget < config.max_num_seqs:  # as vLLM says it
            raise ValueError(
                f"{name} {budget} is less than max_num_seqs {config.max_num_seqs}; every running "
                "request may decode a token"
            )


@settings
class ContinuousConfig(BuiltInConfig, QueueFields):
    """What all but `tgi` and `transformers` have in common."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self)

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for the memory and `max_model_len`."""
        chosen = self.settings("length_error", "length_seed", "prefix_caching")
        return {**chosen, "queue": self.make_queue()}


@settings
class OrcaConfig(ContinuousConfig):
    """Settings of the policy `orca`.

    Examples
    --------
    >>> OrcaConfig(reservation="max").build(KVConfig(num_blocks=10, max_model_len=200))
    Traceback (most recent call last):
    ValueError: orca's reservation = "max" takes max_model_len 200 tokens per request, more than the cache's 160; ...
    """

    name = "orca"
    max_num_batched_tokens: PositiveInt | None = None
    """Most tokens of an iteration; without it as many prompts as may enter are computed at once."""
    reservation: Literal["max", "pow2", "oracle"] = "max"
    """Its reserve: `max_model_len`; prompt and next power of two of its output; or just what
    it will write, prompt + output − 1, for the last token is never fed back."""

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Refuse a memory that holds not even one reservation of the longest kind."""
        if self.reservation == "max" and kv.max_model_len > kv.num_tokens:
            raise ValueError(
                f'orca\'s reservation = "max" takes max_model_len {kv.max_model_len} tokens per '
                f"request, more than the "
                f'cache\'s {kv.num_tokens}; take reservation = "pow2", or a smaller max_model_len'
            )
        return {**super().arguments(kv, trace), "kv": kv.contiguous()}


@settings
class PagedConfig(ContinuousConfig):
    """What `vllm` and `prefill_first` have in common."""

    max_num_batched_tokens: PositiveInt = MAX_NUM_BATCHED_TOKENS
    """Most tokens of an iteration."""
    watermark: Share = 0.0
    """Share of the blocks that an admission leaves free while others run."""
    prefix_caching: bool = False
    """Whether requests with a common beginning share its KV blocks."""

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for `max_model_len`."""
        return {**super().arguments(kv, trace), "kv": kv.paged(self.prefix_caching)}


@settings
class PrefillFirstConfig(PagedConfig):
    """Settings of the policy `prefill_first`; a configuration leaves vLLM V0's `watermark` free.

    Examples
    --------
    >>> PrefillFirstConfig().build(KVConfig(num_blocks=1000, max_model_len=2048)).watermark_blocks
    10
    """

    name = "prefill_first"
    watermark: Share = WATERMARK


@settings
class VllmConfig(PagedConfig):
    """Settings of the policy `vllm`.

    Examples
    --------
    >>> VllmConfig(chunked_prefill=False).build(KVConfig(num_blocks=4096, max_model_len=16384))
    Traceback (most recent call last):
    ValueError: chunked_prefill = false needs max_num_batched_tokens of at least max_model_len 16384, not 8192
    """

    name = "vllm"
    chunked_prefill: bool = True
    """Whether a prompt may be cut to the budget that is left."""
    long_prefill_token_threshold: NonNegativeInt = 0
    """Longest piece of a prefill in an iteration with other requests; 0 for no limit."""
    reserve_full_prompt: bool = True
    """Admit only when the whole prompt fits (vLLM's scheduler_reserve_full_isl)."""

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Refuse what vLLM refuses: prompts over the budget, a threshold over `max_model_len`."""
        if not self.chunked_prefill and self.max_num_batched_tokens < kv.max_model_len:
            raise ValueError(
                "chunked_prefill = false needs max_num_batched_tokens of at least max_model_len "
                f"{kv.max_model_len}, not {self.max_num_batched_tokens}"
            )
        if self.long_prefill_token_threshold > kv.max_model_len:
            raise ValueError(
                f"long_prefill_token_threshold {self.long_prefill_token_threshold} exceeds "
                f"max_model_len {kv.max_model_len}"
            )
        return super().arguments(kv, trace)


@settings
class TgiConfig(BuiltInConfig):
    """Settings of the policy `tgi`.

    Examples
    --------
    >>> policy = TgiConfig().build(KVConfig(num_blocks=1000, max_model_len=16384))
    >>> policy.max_batch_prefill_tokens, policy.max_batch_total_tokens
    (4096, 16000)
    """

    name = "tgi"
    waiting_served_ratio: NonNegativeFloat = WAITING_SERVED_RATIO
    """How many must come in for each that decodes, to be worth a pause."""
    max_waiting_tokens: NonNegativeInt = MAX_WAITING_TOKENS
    """Decodes after which a new batch may be small."""
    max_batch_prefill_tokens: PositiveInt | None = None
    """Most prompt tokens of a prefill. Unset: 4,096, or the longest prompt plus 50 if that is
    more."""
    max_batch_total_tokens: PositiveInt | None = None
    """Most prompt and max output tokens of all running requests. Unset, what the KV holds: TGI
    measures that when it starts."""
    max_output_tokens: PositiveInt | None = None
    """Cap on the output of requests that come without one."""

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for `max_model_len`."""
        most = self.max_batch_prefill_tokens or MAX_BATCH_PREFILL_TOKENS
        if self.max_batch_prefill_tokens is None and trace is not None and len(trace):
            most = max(
                most, min(int(trace.input_tokens.max()), kv.max_model_len) + PREFILL_EDGE_TOKENS
            )
        return {**self.settings(), "kv": kv.paged(), "max_batch_prefill_tokens": most}


@settings
class TrtllmConfig(ContinuousConfig):
    """Settings of the policy `trtllm`.

    Examples
    --------
    >>> type(TrtllmConfig().build(KVConfig(num_blocks=100, max_model_len=512))).__name__
    'GuaranteedNoEvictPolicy'
    """

    name = "trtllm"
    capacity: Literal["guaranteed_no_evict", "max_utilization"] = "guaranteed_no_evict"
    """Memory rule: reserve all that a request may need (TensorRT-LLM's default), or fill the memory
    and pause the newest request when it runs short."""
    max_num_tokens: PositiveInt = MAX_NUM_TOKENS
    """Most tokens of an iteration; the policies' `max_num_batched_tokens`."""
    chunked_prefill: bool = True
    """Whether a prompt may be cut to the tokens left; else it waits until whole. TensorRT-LLM
    does that if asked; otherwise it refuses prompts over `max_num_tokens`."""
    max_output_tokens: PositiveInt | None = None
    """With `guaranteed_no_evict`: cap on the output of requests that come without one."""

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what `in_flight_policy` is called with, but for `max_model_len`."""
        chosen = super().arguments(kv, trace)
        chosen["max_num_batched_tokens"] = chosen.pop("max_num_tokens")
        return {**chosen, "kv": kv.paged()}


@settings
class TransformersConfig(BuiltInConfig):
    """Settings of the policy `transformers`; it has one waiting line, in order of arrival.

    transformers calls the first two max_requests_per_batch and max_batch_tokens. Its blocks have
    256 tokens unless page_size is given.

    Examples
    --------
    >>> TransformersConfig().build(KVConfig(num_blocks=100, max_model_len=512)).safety_margin
    0.15
    """

    name = "transformers"
    max_num_batched_tokens: PositiveInt = MAX_NUM_BATCHED_TOKENS
    """Most tokens of an iteration."""
    safety_margin: Annotated[float, Field(ge=0, le=1)] = SAFETY_MARGIN
    """Share of the blocks; while fewer are free, no prompt is computed beside other requests."""

    def __post_init__(self) -> None:
        check_budget(self)

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for `max_model_len`."""
        return {**self.settings(), "kv": kv.paged()}
