# SPDX-License-Identifier: Apache-2.0
"""Run vLLM's V1 scheduler in virtual time: the judge of decisions (README.md beside it).

No model is run. Usage: python vllm_oracle.py CASE.json OUT.json [MODEL_DIR]

CASE: {"config": {max_num_seqs, max_num_batched_tokens, block_size, num_blocks, chunked_prefill,
max_model_len,
                  watermark, reserve_full_isl, policy, prefix_caching,
                  long_prefill_token_threshold},
       "latency": {"base": s, "per_token": s, "per_context": s}  (an iteration takes base + per_token * new tokens
                  + per_context * the sum over requests of new * (computed + (new + 1) / 2)),
       "requests": [[arrival_s, prompt_len, output_len, priority?, prompt_token_ids?, hash_ids?,
       follows?], ...]} With `follows` = [request, think_s] a request is the next turn of that one:
       it arrives think_s after the answer, and its prompt begins with that prompt and answer;
       prompt_token_ids are then the new tokens alone.
OUT: {"iterations": [[t_start, duration, [[req, n_new], ...], [preempted req, ...]], ...],
      "requests": [[first_token_t, finish_t, preemptions, cached_tokens], ...]}
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

TINY_LLAMA = Path(__file__).parent / "tiny-llama"
MOST_WITHOUT_TOKEN = 3000  # iterations: no prompt of a case takes a tenth of them


class EndlessPreemption(Exception):  # noqa: N818
    """vLLM goes on preempting, and makes no token."""


def build(cfg, model_dir):
    model = ModelConfig(
        model=str(model_dir),
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=cfg["max_model_len"],
    )
    sched = SchedulerConfig(
        max_num_seqs=cfg["max_num_seqs"],
        max_num_batched_tokens=cfg["max_num_batched_tokens"],
        max_model_len=cfg["max_model_len"],
        enable_chunked_prefill=cfg.get("chunked_prefill", True),
        long_prefill_token_threshold=cfg.get("long_prefill_token_threshold", 0),
        policy=cfg.get("policy", "fcfs"),
        async_scheduling=False,
        is_encoder_decoder=False,
        watermark=cfg.get("watermark", 0.0),
        scheduler_reserve_full_isl=cfg.get("reserve_full_isl", False),
    )
    cache = CacheConfig(
        block_size=cfg["block_size"], enable_prefix_caching=cfg.get("prefix_caching", False)
    )
    vcfg = VllmConfig(scheduler_config=sched, model_config=model, cache_config=cache)
    vcfg.cache_config.block_size = cfg["block_size"]
    n = cfg["num_blocks"] + 1  # vLLM keeps one null block
    spec = FullAttentionSpec(
        block_size=cfg["block_size"], num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    kv = KVCacheConfig(
        num_blocks=n, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )
    vcfg.cache_config.num_gpu_blocks = n
    vcfg.scheduler_config.enable_chunked_prefill = cfg.get("chunked_prefill", True)
    return Scheduler(
        vllm_config=vcfg,
        kv_cache_config=kv,
        block_size=cfg["block_size"],
        structured_output_manager=StructuredOutputManager(vcfg),
        log_stats=False,
    )


def answer_token(i, k):
    """Return the k-th token of the answer to request i: no other request has it."""
    return 2 * 10**9 + i * 10**5 + k


def prompt_of(reqs, i, block_size):
    """Return a prompt's token ids; equal hash_ids are equal tokens."""
    r = reqs[i]
    if len(r) > 6 and r[6]:
        before = r[6][0]
        own = r[4] or [
            10**9 + i * 10**5 + j for j in range(r[1] - reqs[before][1] - reqs[before][2])
        ]
        toks = (
            prompt_of(reqs, before, block_size)
            + [answer_token(before, k) for k in range(reqs[before][2])]
            + own
        )
    elif len(r) > 4 and r[4]:
        toks = list(r[4])
    elif len(r) > 5 and r[5]:
        toks = [h * block_size + j for h in r[5] for j in range(block_size)][: r[1]]
    else:
        toks = [10**9 + i * 10**5 + j for j in range(r[1])]
    assert len(toks) == r[1], (i, len(toks), r[1])
    return toks


class Line:
    """Requests in order of arrival; a next turn joins when the turn before it has been answered."""

    def __init__(self, reqs):
        self.reqs = reqs
        self.next_turn = {r[6][0]: i for i, r in enumerate(reqs) if len(r) > 6 and r[6]}
        later = set(self.next_turn.values())
        self.coming = sorted((r[0], i) for i, r in enumerate(reqs) if i not in later)

    def answered(self, i, t):
        turn = self.next_turn.get(i)
        if turn is not None:
            self.coming.append((t + self.reqs[turn][6][1], turn))
            self.coming.sort()

    def arrived(self, t):
        while self.coming and self.coming[0][0] <= t:
            yield self.coming.pop(0)


def run(case, model_dir=TINY_LLAMA):
    cfg, lat, reqs = case["config"], case["latency"], case["requests"]
    s = build(cfg, model_dir)
    init_none_hash(sha256)
    hasher = get_request_block_hasher(cfg["block_size"], sha256)
    line = Line(reqs)
    t, iters, empties, late, tokenless = 0.0, [], 0, [], 0
    first, finish, pre, cached = (
        [None] * len(reqs),
        [None] * len(reqs),
        [0] * len(reqs),
        [None] * len(reqs),
    )
    while line.coming or s.has_unfinished_requests():
        if not s.has_unfinished_requests():
            t = max(t, line.coming[0][0])
        for arrival_s, i in line.arrived(t):
            r = reqs[i]
            sp = SamplingParams(max_tokens=r[2], ignore_eos=True, temperature=0.0)
            s.add_request(
                Request(
                    request_id=f"{i:06d}",
                    prompt_token_ids=prompt_of(reqs, i, cfg["block_size"]),
                    sampling_params=sp,
                    pooling_params=None,
                    arrival_time=arrival_s,
                    priority=(r[3] if len(r) > 3 else 0),
                    block_hasher=hasher,
                )
            )
        out = s.schedule()
        sched = [(int(k), v) for k, v in out.num_scheduled_tokens.items()]
        preempted = sorted(int(k) for k in (out.preempted_req_ids or ()))
        for p in preempted:
            pre[p] += 1
        if not sched:
            empties += 1
            if empties > 50:
                raise RuntimeError(f"nothing scheduled at {t} with unfinished requests")
            late += preempted
            s.update_from_output(out, EMPTY_MODEL_RUNNER_OUTPUT)
            continue
        empties = 0
        preempted = sorted(late + preempted)
        late = []
        ctx = 0.0
        for i, n in sched:
            c = s.requests[f"{i:06d}"].num_computed_tokens - n  # advanced by schedule()
            if cached[i] is None:
                cached[i] = c
            ctx += n * (c + (n + 1) / 2)
        dur = lat["base"] + lat["per_token"] * sum(n for _, n in sched) + lat["per_context"] * ctx
        iters.append([t, dur, [list(x) for x in sched], preempted])
        t += dur
        sampled = []
        tokenless += 1
        for i, _ in sched:
            r = s.requests[f"{i:06d}"]
            if r.num_computed_tokens >= r.num_tokens:
                sampled.append([answer_token(i, r.num_output_tokens)])
                tokenless = 0
                if first[i] is None:
                    first[i] = t
                if r.num_output_tokens + 1 >= reqs[i][2]:
                    finish[i] = t
                    line.answered(i, t)
            else:
                sampled.append([])
        if tokenless > MOST_WITHOUT_TOKEN:
            raise EndlessPreemption(f"no token in {tokenless} iterations at {t}")
        ids = [f"{i:06d}" for i, _ in sched]
        s.update_from_output(
            out,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={k: j for j, k in enumerate(ids)},
                sampled_token_ids=sampled,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
    return {
        "iterations": iters,
        "requests": [list(x) for x in zip(first, finish, pre, cached, strict=True)],
    }


if __name__ == "__main__":
    res = run(
        json.loads(Path(sys.argv[1]).read_text()), sys.argv[3] if len(sys.argv) > 3 else TINY_LLAMA
    )
    Path(sys.argv[2]).write_text(json.dumps(res))
    end_s = res["iterations"][-1][0] + res["iterations"][-1][1]
    print(
        len(res["iterations"]),
        "iterations, end",
        end_s,
        "preemptions",
        sum(r[2] for r in res["requests"]),
    )
