# SPDX-License-Identifier: Apache-2.0
"""Compare `vllm` with vLLM's, random cases: python fuzz_vllm.py SEED CPU_SECONDS."""

import json
import random
import sys
import time
from collections import Counter

import numpy as np
import simpy
import vllm_oracle

from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.clients import Clients
from busdoor.simulator.server import Server
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

LATENCY = {"base": 0.005, "per_token": 5e-5, "per_context": 1e-6}
MAX_MODEL_LEN = 2048
_OWN = 2 * 10**6  # hash ids from here on are shared by no two requests


def make(seed):
    """Draw a case: a configuration near the edge of its memory, and requests that fit."""
    rng = random.Random(seed)
    prefix_caching = rng.random() < 0.5
    block_size = rng.choice([8, 16, 16, 32])
    if prefix_caching and rng.random() < 0.5:
        requests = sessions(rng, block_size)
    else:
        requests = independent(rng, block_size, prefix_caching)
        if seed % 3 == 0:  # nothing is shared: a cache finds only what a preempted request had
            requests = [[*own[:5], None] for own in requests]
    return {
        "config": config(rng, requests, block_size, prefix_caching),
        "latency": LATENCY,
        "requests": requests,
    }


def independent(rng, block_size, repeats):
    """Draw prefix-sharing requests: [arrival, prompt, output, priority, tokens, hash ids]."""
    number = rng.choice([3, 8, 20, 40])
    most_in, most_out = rng.choice([20, 100, 400]), rng.choice([4, 30, 80])
    groups = [[rng.randrange(10**6) for _ in range(60)] for _ in range(3)]
    gap, whole_blocks = rng.choice([0.0, 0.002, 0.02, 0.1]), rng.random() < 0.4
    requests, arrival_s = [], 0.0
    for i in range(number):
        arrival_s += rng.expovariate(1 / gap) if gap else 0.0
        prompt = rng.randint(1, most_in)
        if whole_blocks:
            prompt = max(block_size, prompt // block_size * block_size)
        count = -(-prompt // block_size)
        shared = rng.choice(groups)[: rng.randint(0, count)]
        ids = shared + [_OWN + i * 1000 + j for j in range(len(shared), count)]
        if repeats and requests and rng.random() < 0.2:
            prompt, ids = requests[-1][1], requests[-1][5]
        requests.append([arrival_s, prompt, rng.randint(1, most_out), rng.randint(0, 2), None, ids])
    return requests


def sessions(rng, block_size):
    """Draw conversations: each turn's prompt is the prompt before, its answer and something new."""
    gap, most_new, most_out = (
        rng.choice([0.0, 0.02, 0.1]),
        rng.choice([20, 60]),
        rng.choice([4, 30, 60]),
    )
    requests, arrival_s = [], 0.0
    for session in range(rng.choice([1, 3, 8])):
        arrival_s += rng.expovariate(1 / gap) if gap else 0.0
        prompt = output = 0
        for turn in range(rng.randint(1, 6)):
            prompt += output + rng.randint(1, most_new)
            output = rng.randint(1, most_out)
            # No two turns arrive at once: which of them an idle server sees first is no decision of
            # a scheduler.
            think_s = rng.choice([0.003, 0.01, 0.2]) * rng.uniform(0.9, 1.1)
            follows = [len(requests) - 1, think_s] if turn else None
            ids = [_OWN + session * 1000 + j for j in range(-(-prompt // block_size))]
            requests.append([arrival_s, prompt, output, rng.randint(0, 2), None, ids, follows])
    return requests


def config(rng, requests, block_size, prefix_caching):
    longest = max(-(-(r[1] + r[2] - 1) // block_size) for r in requests)
    total = sum(-(-(r[1] + r[2]) // block_size) for r in requests)
    seqs = rng.choice([1, 2, 4, 16])
    chunked = rng.random() < 0.8
    return {
        "max_num_seqs": seqs,
        "max_num_batched_tokens": rng.choice([max(16, seqs), 64, 256])
        if chunked
        else MAX_MODEL_LEN,
        "block_size": block_size,
        "num_blocks": rng.choice(
            [
                longest,
                longest + 1,
                longest + rng.randint(0, 10),
                max(longest, total // 3),
                total + 10,
            ]
        ),
        "max_model_len": MAX_MODEL_LEN,
        "chunked_prefill": chunked,
        "watermark": rng.choice([0, 0, 0.0537, 0.2119, 0.1, 0.25]),
        "reserve_full_isl": rng.random() < 0.6,
        "policy": rng.choice(["fcfs", "priority"]),
        "prefix_caching": prefix_caching,
        "long_prefill_token_threshold": rng.choice([0, 0, 16, 64]),
    }


def trace_of(case):
    """Return the case as busdoor's trace: follow-ups are turns of a session."""
    requests = case["requests"]
    columns = {}
    if len(requests[0]) > 6:
        turn, session = [], []
        for r in requests:
            turn.append(turn[r[6][0]] + 1 if r[6] else 0)
            session.append(session[r[6][0]] if r[6] else len(session))
        think_time_s = [r[6][1] if r[6] else 0.0 for r in requests]
        columns = {"session_id": session, "turn": turn, "think_time_s": think_time_s}
    return Trace(
        arrival_s=[r[0] for r in requests],
        input_tokens=[r[1] for r in requests],
        output_tokens=[r[2] for r in requests],
        priority=[r[3] for r in requests],
        **(
            {}
            if requests[0][5] is None
            else {
                "hash_ids": [tuple(r[5]) for r in requests],
                "block_size": case["config"]["block_size"],
            }
        ),
        **columns,
    )


def policy_of(cfg):
    kv = (PrefixCachedKV if cfg["prefix_caching"] else PagedKV)(
        cfg["num_blocks"], cfg["block_size"]
    )
    return VllmPolicy(
        kv,
        cfg["max_num_seqs"],
        cfg["max_num_batched_tokens"],
        cfg["max_model_len"],
        chunked_prefill=cfg["chunked_prefill"],
        long_prefill_token_threshold=cfg["long_prefill_token_threshold"],
        queue=cfg["policy"],
        watermark=cfg["watermark"],
        reserve_full_prompt=cfg["reserve_full_isl"],
    )


class Log:
    """Write down every iteration, and what became of every request."""

    def __init__(self, policy):
        self.policy, self.iterations, self.requests = policy, [], {}

    def begin(self, batch, now_s):
        items = {request.request_id: num_tokens for request, num_tokens in self.policy.items(batch)}
        self.iterations.append(
            (now_s, items, sorted(request.request_id for request in batch.preempted))
        )

    def end(self, *args): ...

    def left(self, r, now_s):
        self.requests[r.request_id] = (
            r.first_token_s,
            r.finish_s,
            r.num_preemptions,
            r.cached_tokens,
        )


def ours(case, step_by_step):
    policy = policy_of(case["config"])
    step_time = LinearStepTime(
        **{f"{name}_s": seconds for name, seconds in case["latency"].items()}
    )
    log, env = Log(policy), simpy.Environment()
    clients = Clients(env, trace_of(case), kv_block_size=case["config"]["block_size"])
    server = Server(
        env, policy, step_time, step_by_step=step_by_step, recorder=log, on_leave=clients.left
    )
    clients.start(server)
    env.run()
    return log


def check(case):
    """Return what differs, "endless" where both preempt without end, and "" where all agrees."""
    try:
        expected = vllm_oracle.run(json.loads(json.dumps(case)))
    except vllm_oracle.EndlessPreemption:
        return endless(case)
    steps, jumps = ours(case, True), ours(case, False)
    for k, (a, b) in enumerate(zip(steps.iterations, expected["iterations"], strict=False)):
        tokens = dict(map(tuple, b[2]))
        if abs(a[0] - b[0]) > 1e-9 * max(1, b[0]) or a[1] != tokens or a[2] != b[3]:
            return f"iteration {k}: busdoor {a}, vLLM {(b[0], tokens, b[3])}"
    if len(steps.iterations) != len(expected["iterations"]):
        return f"{len(steps.iterations)} iterations, vLLM {len(expected['iterations'])}"
    for i, theirs in enumerate(expected["requests"]):
        for log in (steps, jumps):
            got = log.requests.get(i)
            if (
                got is None
                or not np.allclose(got[:2], theirs[:2], rtol=1e-9)
                or list(got[2:]) != theirs[2:]
            ):
                return f"request {i}: busdoor {got}, vLLM {theirs}"
    kv = jumps.policy.kv
    return "" if kv.num_free_blocks == kv.num_blocks else "blocks leak"


def endless(case):
    for step_by_step in (True, False):
        try:
            ours(case, step_by_step)
        except ValueError as error:
            if "preempts without end" in str(error):
                continue
        return "vLLM preempts without end, busdoor does not say so"
    return "endless"


def fuzz(seed, cpu_seconds, most_differ=8):
    """Check cases from `seed` for so long; return how many agreed, never ended, differed."""
    counts, start_s = Counter(agree=0, endless=0, differ=0), time.process_time()
    while time.process_time() - start_s < cpu_seconds and counts["differ"] < most_differ:
        case = make(seed)
        try:
            said = check(case)
        except Exception as error:
            said = f"exception {error!r}"
        kind = {"": "agree", "endless": "endless"}.get(said, "differ")
        counts[kind] += 1
        counts["with priority"] += case["config"]["policy"] == "priority"
        counts["sessions"] += len(case["requests"][0]) > 6
        if kind != "agree":
            print("seed", seed, said[:600], json.dumps(case["config"]), flush=True)
        seed += 1
    return counts


if __name__ == "__main__":
    start = int(sys.argv[1])
    counted = fuzz(start, float(sys.argv[2]))
    print(
        f"seeds {start} to {start + sum(counted[k] for k in ('agree', 'endless', 'differ')) - 1}:",
        dict(counted),
    )
