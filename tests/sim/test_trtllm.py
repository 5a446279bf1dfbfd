"""In-flight batching by hand: an iteration lasts a second."""

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
    "kv_blocks_used",
    "num_preempted",
)
EVICT = {"capacity": "max_utilization"}


def run(lengths, arrival_s=None, num_blocks=1000, columns=None, **fields):
    inputs, outputs = zip(*lengths, strict=True)
    arriving = Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **(columns or {}),
    )
    kv = KVConfig(block_size=4, num_blocks=num_blocks, max_model_len=200)
    policy = policy_config("trtllm", **({"max_num_seqs": 8, "max_num_tokens": 32} | fields)).build(
        kv, arriving
    )
    return simulate(arriving, policy, LinearStepTime(base_s=1.0))


def log(result):
    return [tuple(row) for row in result.iterations[list(LOG)].round(9).itertuples(index=False)]


class TestTokens:
    """Decodes first, then context up to max_num_tokens, under either rule for the memory."""

    @pytest.mark.parametrize("capacity", ["guaranteed_no_evict", "max_utilization"])
    def test_context_is_cut_to_what_decodes_leave(self, capacity):
        # 10 tokens an iteration: the first takes 8 and the second the 2 left; then the first
        # decodes, and the second gets 9 of its other 10; its last token yields the first of its
        # answer.
        result = run([(8, 4), (12, 2)], max_num_tokens=10, capacity=capacity, max_output_tokens=4)
        assert [row[:5] for row in log(result)] == [
            (0, 1, 10, 0, 0),
            (1, 1, 9, 1, 8),
            (2, 1, 1, 1, 9),
            (3, 1, 0, 2, 10 + 12),
        ]
        assert result.requests["first_token_s"].tolist() == [1, 3]

    @pytest.mark.parametrize("capacity", ["guaranteed_no_evict", "max_utilization"])
    def test_whole_context_waits_until_it_fits_beside_the_decodes(self, capacity):
        # The 10 of the second never fit beside a decode in 10 tokens, and the third does not
        # overtake it.
        fields = {
            "max_num_tokens": 10,
            "max_output_tokens": 4,
            "chunked_prefill": False,
            "max_num_seqs": 4,
        }
        result = run([(6, 3), (10, 1), (3, 1)], capacity=capacity, **fields)
        assert [row[:5] for row in log(result)] == [
            (0, 1, 6, 0, 0),
            (1, 2, 0, 1, 6),
            (3, 1, 10, 0, 0),
            (4, 1, 3, 0, 0),
        ]

    def test_context_that_has_begun_goes_on_before_anybody_enters(self):
        result = run([(15, 2), (15, 2)], max_num_tokens=10, max_output_tokens=2)
        assert [row[:4] for row in log(result)] == [
            (0, 1, 10, 0),
            (1, 1, 10, 0),
            (2, 1, 9, 1),
            (3, 1, 1, 0),
            (4, 1, 0, 1),
        ]

    def test_slots_are_counted(self):
        result = run([(4, 3)] * 3, max_num_seqs=2, max_output_tokens=3)
        assert [row[:4] for row in log(result)] == [
            (0, 1, 8, 0),
            (1, 2, 0, 2),
            (3, 1, 4, 0),
            (4, 2, 0, 1),
        ]

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"max_output_tokens": 4}, "finished"),
            (
                {"chunked_prefill": False, "max_output_tokens": 4},
                "refused: a context of 40 tokens exceeds max_num_tokens 32",
            ),
            ({"max_output_tokens": 2}, "refused: 3 output tokens exceed max_output_tokens 2"),
            (
                {"max_output_tokens": 4, "num_blocks": 10},
                "refused: its reservation of 11 blocks exceeds the cache's 10",
            ),
            ({**EVICT, "num_blocks": 10}, "refused: its KV of 11 blocks exceeds the cache's 10"),
            ({**EVICT, "num_blocks": 11}, "finished"),
        ],
    )
    def test_what_can_never_enter_is_refused(self, fields, status):
        (found,) = run([(40, 3)], **fields).requests["status"]
        assert found.split(";")[0] == status


class TestGuaranteedNoEvict:
    def test_a_request_enters_when_its_blocks_to_the_end_are_left(self):
        # 4 + 9 - 1 = 12 tokens are 3 blocks; eight hold two requests, whatever their true lengths.
        # The third enters when one has left.
        result = run([(4, 3), (4, 9), (4, 2)], num_blocks=8, max_output_tokens=9)
        assert log(result) == [
            (0, 1, 8, 0, 0, 6, 0),
            (1, 2, 0, 2, 8, 6, 0),
            (3, 1, 4, 1, 6, 6, 0),
            (4, 1, 0, 2, 7 + 4, 6, 0),
            (5, 4, 0, 1, 8, 3, 0),
        ]
        first = result.iterations.iloc[1]
        assert (
            first["kv_reserved_tokens"],
            first["kv_used_tokens"],
            first["kv_unused_tokens"],
        ) == (24, 8, 24 - 6 - 12)

    def test_nobody_overtakes(self):
        # One block is left: too few for the second, enough for the third, which waits behind it.
        columns = {"max_output_tokens": [5, 9, 1]}
        result = run([(4, 5), (4, 2), (4, 1)], num_blocks=4, columns=columns)
        assert result.requests["first_scheduled_s"].tolist() == [0, 5, 5]

    def test_the_cap_of_the_client_counts_before_the_policys(self):
        columns = {"max_output_tokens": [5, 5]}
        result = run([(4, 5), (4, 5)], num_blocks=4, max_output_tokens=100, columns=columns)
        assert result.requests["first_scheduled_s"].tolist() == [0, 0]


class TestMaxUtilization:
    def test_the_newest_is_paused_and_computed_anew(self):
        # Prompts of 8 fill 4 of 5 blocks. Both decodes begin a block; there is one, so the newest
        # goes, and nobody enters in that iteration. Its 8 + 1 tokens are 3 blocks, which the first
        # leaves when it ends.
        result = run([(8, 4), (8, 4)], num_blocks=5, **EVICT)
        assert log(result) == [
            (0, 1, 16, 0, 0, 4, 0),
            (1, 1, 0, 1, 8, 3, 1),
            (2, 2, 0, 1, 9, 3, 0),
            (4, 1, 9, 0, 0, 3, 0),
            (5, 2, 0, 1, 9, 3, 0),
        ]
        assert result.requests["num_preemptions"].tolist() == [0, 1]
        assert result.requests["first_token_s"].tolist() == [1, 1]
        assert result.requests["finish_s"].tolist() == [4, 7]

    def test_as_many_are_paused_as_it_takes(self):
        # Six prompts of 4 fill six blocks, and every decode begins one: three make room for three.
        # One of the three has its last token then; the next in line finds the 2 blocks of its 4 + 1
        # tokens.
        result = run([(4, 2), *[(4, 4)] * 5], num_blocks=6, **EVICT)
        assert log(result)[:3] == [
            (0, 1, 24, 0, 0, 6, 0),
            (1, 1, 0, 3, 12, 6, 3),
            (2, 1, 5, 2, 10, 6, 0),
        ]
        assert result.requests["num_preemptions"].tolist() == [0, 0, 0, 1, 1, 1]
        assert result.requests["first_scheduled_s"].tolist() == [0] * 6

    def test_context_in_progress_is_paused_too(self):
        # The second's 20 tokens hold 5 blocks from its first piece on. The first begins its third
        # block at 8 tokens.
        result = run([(7, 4), (20, 1)], num_blocks=7, max_num_tokens=10, **EVICT)
        assert log(result) == [
            (0, 1, 10, 0, 0, 7, 0),
            (1, 1, 9, 1, 7, 7, 0),
            (2, 1, 0, 1, 8, 3, 1),  # the second had 12 of its 20
            (3, 1, 0, 1, 9, 3, 0),
            (4, 1, 10, 0, 0, 5, 0),
            (5, 1, 10, 0, 0, 5, 0),
        ]

    def test_only_the_context_has_to_fit_to_enter(self):
        # Each may come to 3 blocks; four hold the two prompts, and the first ends just when it
        # would begin another.
        result = run([(8, 1), (8, 4)], num_blocks=4, **EVICT)
        assert result.requests["first_scheduled_s"].tolist() == [0, 0]
        assert result.requests["num_preemptions"].sum() == 0


def test_every_running_request_may_decode():
    with pytest.raises(ValueError, match="max_num_tokens 512 is less than max_num_seqs 1024"):
        policy_config("trtllm", max_num_tokens=512)
