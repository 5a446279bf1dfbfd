"""The columns of a result's tables."""

from __future__ import annotations

REQUEST_COLUMNS = (
    "request_id",
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "max_output_tokens",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "released_s",
    "num_preemptions",
    "cached_tokens",
    "replica",
)

ITERATION_COLUMNS = (
    "start_s",
    "duration_s",
    "repeat",
    "first_duration_s",
    "last_duration_s",
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_padded_tokens",
    "num_idle_rows",
    "num_requests",
    "num_first_tokens",
    "num_joined",
    "prefill_attention",
    "prefill_context_tokens",
    "context_tokens",
    "context_tokens_last",
    "kv_blocks_used",
    "kv_blocks_used_last",
    "kv_reserved_tokens",
    "kv_used_tokens",
    "kv_unused_tokens",
    "kv_hole_tokens",
    "num_waiting",
    "num_running",
    "num_preempted",
    "num_resumed",
    "resumed_gap_s",
)

STAY_COLUMNS = ("request_id", "enter_s", "leave_s")
