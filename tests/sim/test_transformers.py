"""Transformers' continuous batching by hand: an iteration lasts a second."""

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
    "kv_blocks_used",
    "num_preempted",
)


def run(lengths, arrival_s=None, num_blocks=1000, columns=None, **fields):
    inputs, outputs = zip(*lengths, strict=True)
    trace = Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **(columns or {}),
    )
    kv = KVConfig(block_size=4, num_blocks=num_blocks, max_model_len=200)
    given = {"max_num_seqs": 8, "max_num_batched_tokens": 32} | fields
    policy = policy_config("transformers", **given).build(kv, trace)
    return simulate(trace, policy, LinearStepTime(base_s=1.0), lookahead=0)


def log(result):
    rows = result.iterations[list(LOG)].round(9).itertuples(index=False)
    return [tuple(row) for row in rows]


class TestOrder:
    def test_decodes_then_prompts_that_have_begun_then_waiting_ones(self):
        # 10 tokens per iteration: 8 and 2; then one decode, and 9 of the second's other 10.
        result = run([(8, 4), (12, 2), (3, 1)], max_num_batched_tokens=10)
        assert [row[:4] for row in log(result)] == [
            (0, 1, 10, 0),
            (1, 1, 9, 1),
            (2, 1, 1 + 3, 1),
            (3, 1, 0, 2),
        ]
        assert result.requests["first_token_s"].tolist() == [1, 3, 3]

    def test_slots_are_counted(self):
        result = run([(4, 3)] * 3, max_num_seqs=2)
        assert [row[:4] for row in log(result)] == [
            (0, 1, 8, 0),
            (1, 2, 0, 2),
            (3, 1, 4, 0),
            (4, 2, 0, 1),
        ]

    def test_a_smaller_request_overtakes_one_without_room(self):
        # 10 blocks; the first takes 6. The second needs 5, the third the 2 of its 8 tokens.
        result = run([(24, 3), (20, 1), (8, 1)], num_blocks=10, max_num_batched_tokens=64)
        assert result.requests["first_scheduled_s"].tolist() == [0, 3, 0]

    def test_a_late_arrival_overtakes_too_while_others_decode(self):
        result = run(
            [(24, 9), (20, 1), (8, 1)],
            arrival_s=[0, 0, 2.5],
            num_blocks=10,
            max_num_batched_tokens=64,
        )
        assert result.requests["first_scheduled_s"].tolist() == [0, 9, 3]


class TestSafetyMargin:
    """20 blocks of 4 tokens; 15 % are 3 blocks."""

    def test_below_it_no_prompt_enters_beside_decodes(self):
        # 69 tokens hold 18 blocks: 2 are free, too few, though the second would take only 1.
        result = run([(69, 3), (4, 1)], num_blocks=20, max_num_batched_tokens=69)
        assert result.requests["first_scheduled_s"].tolist() == [0, 3]

    def test_at_it_one_enters(self):
        # 68 tokens hold 17 blocks, and the first token writes into an 18th after the check.
        result = run([(68, 3), (4, 1)], num_blocks=20, max_num_batched_tokens=68)
        assert result.requests["first_scheduled_s"].tolist() == [0, 1]

    def test_it_is_checked_once_per_iteration(self):
        # Both enter an empty cache at once, the second with 2 blocks left.
        result = run([(69, 3), (4, 1)], num_blocks=20, max_num_batched_tokens=80)
        assert result.requests["first_scheduled_s"].tolist() == [0, 0]

    def test_none_is_kept_on_request(self):
        lengths = [(69, 3), (4, 1)]
        result = run(lengths, num_blocks=20, max_num_batched_tokens=69, safety_margin=0.0)
        assert result.requests["first_scheduled_s"].tolist() == [0, 1]

    def test_a_prompt_goes_on_below_it_where_nothing_else_is_scheduled(self):
        # 40 of 76 tokens, then the 36 others with 10 of 20 blocks free: fewer than 60 %.
        fields = {"num_blocks": 20, "max_num_batched_tokens": 40, "safety_margin": 0.6}
        result = run([(76, 1), (4, 1)], **fields)
        assert [row[2] for row in log(result)] == [40, 36, 4]


class TestStarvation:
    def test_the_newest_starved_is_preempted_and_nothing_enters_before_a_finish(self):
        # Prompts of 8 fill 4 of 5 blocks, and every decode begins one: the first takes the last.
        # The third (1 block) finds 2 free then, 40 %, yet waits until the first is done.
        result = run([(8, 4), (8, 4), (4, 1)], arrival_s=[0, 0, 0.5], num_blocks=5)
        assert log(result) == [
            (0, 1, 16, 0, 4, 0),
            (1, 1, 0, 1, 3, 1),
            (2, 2, 0, 1, 3, 0),
            (4, 1, 4 + 9, 0, 4, 0),
            (5, 2, 0, 1, 3, 0),
        ]
        assert result.requests["num_preemptions"].tolist() == [0, 1, 0]
        assert result.requests["finish_s"].tolist() == [4, 7, 5]

    def test_the_preempted_go_behind_all_that_wait_in_their_order(self):
        # Six prompts of 4 fill six blocks, and every decode begins one, so that all are starved:
        # three go, three begin their second block; the one that waits has its turn before them.
        lengths = [(4, 2), (4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (12, 1)]
        result = run(lengths, arrival_s=[0.0] * 6 + [0.5], num_blocks=6, safety_margin=0.0)
        assert log(result)[:2] == [(0, 1, 24, 0, 6, 0), (1, 1, 0, 3, 6, 3)]
        assert result.requests["num_preemptions"].tolist() == [0, 0, 0, 1, 1, 1, 0]
        # The first's two blocks hold one that was preempted (5 tokens), not the 12 before it.
        assert log(result)[2] == (2, 1, 5, 2, 6, 0)
        assert result.requests["first_scheduled_s"].iloc[6] == 4

    def test_the_starved_that_keeps_its_place_is_left_out_of_one_iteration(self):
        # Three decodes begin a block at once, one is free: the first runs, the third is preempted,
        # and the second, left out, runs on in the next iteration.
        result = run([(8, 4), (8, 4), (8, 4)], num_blocks=7)
        assert log(result)[:3] == [
            (0, 1, 24, 0, 6, 0),
            (1, 1, 0, 1, 5, 1),
            (2, 2, 0, 2, 6, 0),
        ]
        assert result.requests["finish_s"].tolist()[:2] == [4, 5]

    def test_a_client_that_leaves_the_last_running_one_lets_others_enter(self):
        # The second is preempted at 1; the first's client goes at 2.5, with no finish since.
        columns = {"timeout_s": [2.5, float("nan")]}
        result = run([(8, 9), (8, 2)], num_blocks=5, columns=columns)
        assert result.requests["status"].tolist() == ["abandoned", "finished"]
        assert result.requests["num_preemptions"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("num_blocks", "status"),
    [(10, "refused: its KV of 11 blocks exceeds the cache's 10"), (11, "finished")],
)
def test_what_can_never_be_served_is_refused(num_blocks, status):
    assert run([(40, 3)], num_blocks=num_blocks).requests["status"].tolist() == [status]


def test_every_running_request_may_decode():
    with pytest.raises(ValueError, match="max_num_batched_tokens 512 is less than max_num_seqs"):
        policy_config("transformers", max_num_batched_tokens=512)


def test_there_is_one_waiting_line():
    with pytest.raises(ValueError, match="'queue' is not a field"):
        policy_config("transformers", queue="sjf")
