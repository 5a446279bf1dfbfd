"""Prefill before decode, by hand: an iteration lasts a second."""

import pytest

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

LOG = (
    "start_s",
    "repeat",
    "num_prefill_tokens",
    "num_decode_tokens",
    "context_tokens",
    "num_preempted",
)


def run(lengths, arrival_s=None, num_blocks=1000, columns=None, **fields):
    inputs, outputs = zip(*lengths, strict=True)
    arriving = Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **(columns or {}),
    )
    kv = KVConfig(block_size=4, num_blocks=num_blocks, max_model_len=200)
    fields = {"max_num_seqs": 8, "max_num_batched_tokens": 32, "watermark": 0.0} | fields
    return simulate(
        arriving,
        policy_config("prefill_first", **fields).build(kv, arriving),
        LinearStepTime(base_s=1.0),
    )


def log(result):
    return [tuple(row) for row in result.iterations[list(LOG)].round(9).itertuples(index=False)]


def test_decodes_stand_still_while_prompts_are_computed():
    result = run([(10, 4), (20, 2), (30, 3)], [0, 0, 1.5])
    assert log(result) == [
        (0, 1, 30, 0, 0, 0),
        (1, 1, 0, 2, 30, 0),  # the second has finished
        (2, 1, 30, 0, 0, 0),  # the third came meanwhile: the first, which has two tokens, waits
        (3, 2, 0, 2, 41, 0),
    ]
    assert result.requests["first_token_s"].tolist() == [1, 1, 3]
    assert result.requests["finish_s"].tolist() == [5, 2, 5]


def test_a_prompt_that_does_not_fit_the_rest_of_the_budget_waits_for_the_next_iteration():
    result = run([(20, 2), (13, 2), (12, 2)])
    assert log(result) == [(0, 1, 20, 0, 0, 0), (1, 1, 25, 0, 0, 0), (2, 1, 0, 3, 45, 0)]


def test_only_a_prompt_beyond_the_budget_is_cut():
    result = run([(70, 2), (20, 2)])
    assert log(result) == [
        (0, 1, 32, 0, 0, 0),
        (1, 1, 32, 0, 0, 0),
        (2, 1, 26, 0, 0, 0),  # its last 6, and the 20 of the next
        (3, 1, 0, 2, 90, 0),
    ]
    assert result.requests["first_token_s"].tolist() == [3, 3]


def test_the_last_admitted_is_thrown_out_and_computed_anew():
    # Two prompts of 8 fill 4 of 5 blocks. Both decodes begin a block at once; there is one, so the
    # second goes. It comes back when the first has gone, and its 8 + 1 tokens are computed
    # together.
    result = run([(8, 4), (8, 4)], num_blocks=5)
    assert log(result) == [
        (0, 1, 16, 0, 0, 0),
        (1, 1, 0, 1, 8, 1),
        (2, 2, 0, 1, 9, 0),
        (4, 1, 9, 0, 0, 0),
        (5, 2, 0, 1, 9, 0),
    ]
    assert result.requests["num_preemptions"].tolist() == [0, 1]
    assert result.requests["first_token_s"].tolist() == [1, 1]
    assert result.requests["finish_s"].tolist() == [4, 7]


def test_the_worst_priority_is_thrown_out():
    result = run([(8, 4), (8, 4)], num_blocks=5, queue="priority", columns={"priority": [1, 0]})
    assert result.requests["num_preemptions"].tolist() == [1, 0]
    assert result.requests["finish_s"].tolist() == [7, 4]


def test_watermark_keeps_admissions_from_the_last_blocks():
    lengths, at = [(8, 9), (8, 2)], [0, 0.5]
    assert run(lengths, at, num_blocks=5, watermark=0.0).requests["first_scheduled_s"].tolist() == [
        0,
        1,
    ]
    assert run(lengths, at, num_blocks=5, watermark=0.4).requests["first_scheduled_s"].tolist() == [
        0,
        9,
    ]


def test_equal_prefixes_are_computed_once():
    shared = {"hash_ids": [(1, 2, 3), (1, 2, 4)], "block_size": 4}
    result = run([(12, 3), (12, 3)], [0, 0.5], prefix_caching=True, columns=shared)
    assert result.requests["cached_tokens"].tolist() == [0, 8]
    assert result.iterations["num_prefill_tokens"].tolist()[:2] == [12, 4]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_num_batched_tokens 4 is less than max_num_seqs 8"):
        policy_config("prefill_first", max_num_seqs=8, max_num_batched_tokens=4)
    with pytest.raises(ValueError, match=r"watermark = 1\.0: input should be less than 1"):
        policy_config("prefill_first", watermark=1.0)
