# SPDX-License-Identifier: Apache-2.0
"""Compare the policy `transformers` with transformers' own scheduler on random cases.

python fuzz_transformers.py SEED CPU_SECONDS
"""

import json
import random
import sys
import time
from collections import Counter

import transformers_oracle

from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.transformers import TransformersPolicy


def make(seed):
    """Draw a case: memory for the longest request and a little more, so that blocks run out."""
    rng = random.Random(seed)
    most_in, most_out = rng.choice([6, 20, 60]), rng.choice([4, 15, 40])
    gap, now, requests = rng.choice([0, 0, 1, 5]), 0, []
    for _ in range(rng.choice([2, 5, 12, 30])):
        now += rng.randint(0, gap)
        requests.append([now, rng.randint(1, most_in), rng.randint(1, most_out)])
    block_size = rng.choice([4, 8, 16])
    longest = max(-(-(prompt + output - 1) // block_size) for _, prompt, output in requests)
    slots = rng.choice([1, 2, 4, 8, 32])
    config = {
        "max_num_seqs": slots,
        "max_num_batched_tokens": max(slots, rng.choice([4, 16, 40, 200])),
        "safety_margin": rng.choice([0.0, 0.15, 0.15, 0.5, 1.0]),
        "block_size": block_size,
        "num_blocks": longest + rng.choice([0, 1, 3, 8, 100]),
    }
    return {"config": config, "requests": requests}


def run(case):
    """Return what the policy decides: the iterations, and the requests preempted before each."""
    config = dict(case["config"])
    kv = PagedKV(config.pop("num_blocks"), config.pop("block_size"))
    policy = TransformersPolicy(kv, max_model_len=10_000, **config)
    due = [Request(i, *request) for i, request in enumerate(case["requests"])]
    log, preempted, now = [], [], 0
    while due or policy.num_waiting or policy.num_running:
        if not (policy.num_waiting or policy.num_running):
            now = max(now, due[0].arrival_s)
        while due and due[0].arrival_s <= now:
            policy.add(due.pop(0))
        batch = policy.schedule(now)
        log.append(sorted([request.request_id, tokens] for request, tokens in policy.items(batch)))
        preempted.append(sorted(request.request_id for request in batch.preempted))
        policy.complete(batch, 1)
        now += 1
    return log, preempted


def compare(case):
    """Return whether all iterations agree, and whether transformers preempts in them."""
    judge = transformers_oracle.run(case)
    return run(case) == judge, any(judge[1])


def fuzz(seed, cpu_seconds):
    """Compare case after case for so long; print those that differ, and count the kinds."""
    counts = Counter(differ=0)
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        case = make(seed)
        agree, preempting = compare(case)
        counts["agree" if agree else "differ"] += 1
        counts["preempting"] += preempting
        if not agree:
            print(seed, json.dumps(case), flush=True)
        seed += 1
    return counts


if __name__ == "__main__":
    print(dict(fuzz(int(sys.argv[1]), float(sys.argv[2]))))
