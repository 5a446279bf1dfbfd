"""Closed forms that a batching server must obey: they test the simulator, flag overload.

Times are in seconds, rates in requests per second, lengths in tokens. A formula that does not exist
for an unstable queue returns infinity. Where a law of lengths enters by more than its mean, the
functions take moments or samples, so that they serve traces as well as the laws of
`busdoor_workloads.lengths`.
"""

from busdoor.theory.at_load import batched_latency_s, lone_latency_s, shared_latency_s
from busdoor.theory.capacity import continuous_capacity_rps
from busdoor.theory.continuous import (
    CappedSharing,
    capped_sharing,
    saturated_continuous_rps,
    sharing_in_flight,
    sharing_latency_s,
    sharing_load,
    sharing_tpot_s,
)
from busdoor.theory.full_batches import fixed_batch_wait_s
from busdoor.theory.kv import (
    kv_limited_batch,
    kv_occupancy_tokens,
    kv_token_steps,
    reserved_token_steps,
)
from busdoor.theory.line import StepLine
from busdoor.theory.single_server import (
    erlang_c,
    gm1_sigma,
    gm1_wait_s,
    kingman_wait_s,
    md1_wait_s,
    mg1_wait_s,
    mm1_wait_s,
    mmc_wait_s,
)
from busdoor.theory.static import (
    batch_time_s,
    expected_max,
    exponential_max,
    fill_wait_s,
    inoue_bound_s,
    multi_bin_max,
    saturated_static_rps,
    static_is_stable,
    take_all_latency_s,
)
from busdoor.theory.whole_batches import static_capacity_rps, whole_batch_capacity_rps

__all__ = [
    "CappedSharing",
    "StepLine",
    "batch_time_s",
    "batched_latency_s",
    "capped_sharing",
    "continuous_capacity_rps",
    "erlang_c",
    "expected_max",
    "exponential_max",
    "fill_wait_s",
    "fixed_batch_wait_s",
    "gm1_sigma",
    "gm1_wait_s",
    "inoue_bound_s",
    "kingman_wait_s",
    "kv_limited_batch",
    "kv_occupancy_tokens",
    "kv_token_steps",
    "lone_latency_s",
    "md1_wait_s",
    "mg1_wait_s",
    "mm1_wait_s",
    "mmc_wait_s",
    "multi_bin_max",
    "reserved_token_steps",
    "saturated_continuous_rps",
    "saturated_static_rps",
    "shared_latency_s",
    "sharing_in_flight",
    "sharing_latency_s",
    "sharing_load",
    "sharing_tpot_s",
    "static_capacity_rps",
    "static_is_stable",
    "take_all_latency_s",
    "whole_batch_capacity_rps",
]
