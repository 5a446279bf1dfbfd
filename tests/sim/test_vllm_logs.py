"""Logs of the kit for the real vLLM: predicted from one of them, then compared."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from benchmarks.gpu.vllm_logs import COMPARISON, PREDICTIONS, Job, main, read_log

from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.step_time.calibrated import CalibratedStepTime

# What the made-up machine takes; the fit has these terms.
STEP = CalibratedStepTime(base_s=8e-3, per_token_s=(2e-5,), per_context_s=1e-7)
BLOCKS, LONGEST, SLOTS, BUDGET = 3000, 512, 64, 256
JOBS = (
    "low.csv,for=20",
    "high.csv,for=15",
    "high.csv,gap=1,for=15,seqs=8,name=burst_cont8",
    "high.csv,gap=1,for=15,mode=static,batch=8,name=burst_static8",
)


def served(trace, seqs, static=None):
    """What the kit's harness would log of a server that takes exactly `STEP`."""
    rows = list(
        zip(trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(),
            strict=True)
    )  # fmt: skip
    size = static or len(rows)
    groups = [range(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
    now, iterations, batches, log = 0.0, [], [], [[*row, None, None] for row in rows]
    for group in groups:
        policy = VllmPolicy(PagedKV(BLOCKS, 16), seqs, BUDGET, max_model_len=LONGEST)
        longest, waiting, begun = max(rows[i][2] for i in group), list(group), now
        while waiting or policy.num_waiting or policy.num_running:
            while waiting and (static or rows[waiting[0]][0] <= now):
                number = waiting.pop(0)
                if static:
                    log[number][2] = min(longest, LONGEST - rows[number][1])
                policy.add(Request(number, now, rows[number][1], log[number][2]))
            batch = policy.schedule(now)
            if batch is None:
                now = rows[waiting[0]][0]
                continue
            items = [[request.request_id, tokens] for request, tokens in policy.items(batch)]
            start, now = now, now + float(STEP.durations_s(batch, 1)[0])
            iterations.append([start, now, items, [one.request_id for one in batch.preempted]])
            for chunk in batch.chunks:
                if chunk.completes:
                    log[chunk.request.request_id][3] = now
            for request in policy.complete(batch, 1):
                log[request.request_id][4] = now
        batches.append([begun, now, list(group)])
    settings = {"max_num_seqs": seqs, "max_num_batched_tokens": BUDGET, "block_size": 16}
    settings |= {"num_blocks": BLOCKS, "max_model_len": LONGEST}
    scheduler = {"scheduler_reserve_full_isl": True, "watermark": 0.0}
    about = {"model": "tiny", "dtype": "float32", "vllm": "0.24.0", "scheduler": scheduler}
    document = {"config": settings, "about": about | {"async_scheduling": False}}
    document |= {"mode": "static" if static else "continuous", "requests": log}
    document |= {"iterations": iterations, "batches": batches}
    return document | {"answers": trace.output_tokens.tolist()}


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A folder of traces and one of logs, as the kit leaves them."""
    folder = tmp_path_factory.mktemp("kit")
    for name, rate, seed in (("low", 3.0, 0), ("high", 6.0, 1)):
        draw = np.random.default_rng(seed)
        count = int(20 * rate)
        columns = {
            "arrival_s": np.sort(draw.uniform(0, 20, count)),
            "input_tokens": draw.integers(16, 300, count),
            "output_tokens": draw.integers(2, 90, count),
        }
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    (folder / "logs").mkdir()
    for spec in JOBS:
        job = Job.of(spec)
        seqs = int(job.options.get("seqs", SLOTS))
        document = served(job.trace(folder, LONGEST), seqs, job.static)
        with gzip.open(folder / "logs" / f"{job.name}.json.gz", "wt") as file:
            json.dump(document, file)
    return folder


def test_a_log_says_how_its_scheduler_was_set(kit):
    result, _ = read_log(kit / "logs" / "low.json.gz")
    assert result.meta["policy_config"] == {
        "name": "vllm",
        "max_num_seqs": SLOTS,
        "max_num_batched_tokens": BUDGET,
        "reserve_full_prompt": True,
        "watermark": 0.0,
    }
    assert (result.meta["lookahead"], result.meta["engine_version"]) == (0, "0.24.0")


def test_what_was_predicted_from_one_log_is_compared_with_the_others(kit, tmp_path, capsys):
    out = tmp_path / "out"
    low = str(kit / "logs" / "low.json.gz")
    jobs = [part for spec in JOBS[1:] for part in ("--job", spec)]
    main(["predict", low, "--traces", str(kit), "--out", str(out), *jobs])
    assert "reserve_full_prompt = True, watermark = 0.0" in capsys.readouterr().out
    before = (out / PREDICTIONS).read_bytes()
    main(["compare", str(kit / "logs"), "--out", str(out)])
    said = capsys.readouterr().out
    assert (out / PREDICTIONS).read_bytes() == before
    assert said.count("given the durations, 100.00 % of the batches repeat") == 2
    assert "gain of burst_cont8 over burst_static8: predicted" in said
    assert "✗" not in said
    table = pd.read_csv(out / COMPARISON).set_index(["run", "quantity"])
    errors = table["error"].abs()
    for run in (
        "high",
        "burst_cont8",
        "burst_static8",
    ):  # a fit of 20 s, on a machine without noise
        assert errors[run, "e2e_mean"] < 0.01, run
        assert errors[run, "ttft_mean"] < 0.02, run
    assert table["measured"]["burst_static8", "saturated_rate"] > 0


def test_nothing_is_compared_without_predictions(kit, tmp_path):
    with pytest.raises(ValueError, match=r"no predictions\.csv; run predict first, and commit"):
        main(["compare", str(kit / "logs"), "--out", str(tmp_path)])
