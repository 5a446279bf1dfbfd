"""A session's next prompt holds the last answer; the prefix cache has it, as in vLLM."""

from pathlib import Path

import pytest

from busdoor.config import load_config
from busdoor.kv.config import KVConfig
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies import VllmPolicy, policy_config
from busdoor.simulator.block_names import BlockNames
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

CASES = Path(__file__).parents[1] / "cases"
SECOND = LinearStepTime(base_s=1.0)


def conversation(**columns):
    """Prompts of 20, then 20 + 30 + 10, tokens; ids of 16 tokens."""
    given = {
        "arrival_s": [0, 0],
        "input_tokens": [20, 60],
        "output_tokens": [30, 5],
        "session_id": [0, 0],
        "turn": [0, 1],
        "hash_ids": [(1, 2), (1, 2, 3, 4)],
        "block_size": 16,
    }
    return Trace(**given | columns)


def cached(trace, block_size=16):
    policy = VllmPolicy(PrefixCachedKV(64, block_size), 4, 512, 512)
    return simulate(trace, policy, SECOND).requests["cached_tokens"].tolist()


def test_the_next_turn_finds_every_full_block_of_prompt_and_answer():
    """20 + 30 − 1 tokens were computed, for the last one is never fed back: three full blocks."""
    assert cached(conversation()) == [0, 48]


def test_ids_of_larger_blocks_are_expressed_in_the_servers():
    assert cached(conversation(), block_size=8) == [0, 48]
    assert cached(conversation(hash_ids=[(1,), (1, 2)], block_size=32), block_size=8) == [0, 48]


def test_without_a_session_an_answer_has_no_name():
    """Mooncake's traces tell none: the prompt's full blocks are all that can be found."""
    assert cached(conversation(session_id=None, turn=None, arrival_s=[0, 100])) == [0, 16]


def test_a_prompt_that_does_not_go_on_from_the_last_one_finds_no_answer():
    assert cached(conversation(hash_ids=[(1, 2), (9, 2, 3, 4)])) == [0, 0]
    assert cached(conversation(input_tokens=[20, 40], hash_ids=[(1, 2), (1, 2, 3)])) == [0, 16]


def test_a_partly_filled_last_block_of_a_real_trace_may_have_a_name_of_its_own():
    """Its id stands for less than the next prompt's there: the longest prompt names both."""
    names = BlockNames(conversation(hash_ids=[(1, 77), (1, 2, 3, 4)]), 16)
    assert (names.hash_ids(0), names.context_ids(0), names.context_ids(1)) == (
        (1, 77),
        (1, 2, 3, 4),
        (),
    )


def test_a_long_conversation_computes_each_token_about_once():
    """Shared case multi_turn: in vLLM 91.9 % of the later prompts is cached."""
    config = load_config(CASES / "multi_turn" / "multi_turn.toml")
    trace = config.workload.trace()
    policy = policy_config("vllm", prefix_caching=True).build(
        KVConfig(num_blocks=20_000, max_model_len=4096), trace
    )
    requests = simulate(trace, policy, LinearStepTime(base_s=0.01)).requests
    later = requests[requests["input_tokens"] > 100]
    assert later["cached_tokens"].sum() / later["input_tokens"].sum() == pytest.approx(
        0.919, abs=5e-4
    )
