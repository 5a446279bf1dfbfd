# SPDX-License-Identifier: Apache-2.0
"""Run transformers' own FIFOScheduler, cache and offloading without a model: the judge of the policy `transformers`.

A case is {"config": {max_num_seqs, max_num_batched_tokens, safety_margin, block_size, num_blocks},
"requests": [[arrival, prompt, output], ...]} with arrivals in iterations, in order. `run` returns
for every iteration [[request, tokens], ...] in order of request, and the preempted requests.
"""

from transformers import LlamaConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.distributed import DistributedHelper
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager
from transformers.generation.continuous_batching.requests import RequestState
from transformers.generation.continuous_batching.scheduler import FIFOScheduler

MODEL = LlamaConfig(
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    vocab_size=32,
)


def build(cfg):
    """Return a cache of so many blocks, its scheduler, and what preempts."""
    helper = DistributedHelper(device_mesh=None, cpu_group_timeout=None)
    settings = ContinuousBatchingConfig(
        page_size=cfg["block_size"],
        num_blocks=cfg["num_blocks"],
        max_batch_tokens=cfg["max_num_batched_tokens"],
        max_requests_per_batch=cfg["max_num_seqs"],
        max_blocks_per_request=0,
        allow_block_sharing=False,
        max_memory_percent=0.9,
    )
    cache = PagedAttentionCache(MODEL, settings, "cpu", helper)
    assert cache.num_blocks == cfg["num_blocks"], (cache.num_blocks, cfg)
    scheduler = FIFOScheduler(cache, cfg["safety_margin"], cfg["max_num_seqs"])
    return scheduler, OffloadingManager(cache, scheduler, 0.0, 0.8, None, helper)


def decide(scheduler, offloading, budget):
    """Decide an iteration as ContinuousBatchProcessor.prepare_next_batch does."""
    cache_budget = scheduler.cache.max_tokens_read
    chosen = scheduler.schedule_batch(budget, cache_budget)[0]
    while chosen is None:
        assert offloading.offload_requests()
        chosen = scheduler.schedule_batch(budget, cache_budget)[0]
    if scheduler.starved_requests:
        offloading.offload_requests()
    for future in chosen:
        future.state.position_offset += future.query_length
    return chosen


def update(scheduler, chosen):
    """Give every finished prefill and decode a token, as ContinuousBatchProcessor.update_batch does."""
    for future in chosen:
        if future.has_new_token and future.state.update_and_check_completion(1, None):
            scheduler.finish_request(future.state.request_id)
            scheduler.block_new_requests = False


def run(case):
    scheduler, offloading = build(case["config"])
    budget = case["config"]["max_num_batched_tokens"]
    due = [
        (arrival, str(i), prompt, output)
        for i, (arrival, prompt, output) in enumerate(case["requests"])
    ]
    log, preempted, now = [], [], 0
    while due or scheduler.has_pending_requests():
        if not scheduler.has_pending_requests():
            now = max(now, due[0][0])
        while due and due[0][0] <= now:
            _, name, prompt, output = due.pop(0)
            state = RequestState(name, [0] * prompt, max_new_tokens=output)
            scheduler.add_waiting_request(state)
        active = set(scheduler.active_requests)
        chosen = decide(scheduler, offloading, budget)
        assert len(scheduler.active_requests) <= case["config"]["max_num_seqs"]
        log.append(sorted([int(future.state.request_id), future.query_length] for future in chosen))
        preempted.append(sorted(int(name) for name in active - set(scheduler.active_requests)))
        update(scheduler, chosen)
        now += 1
    return log, preempted
