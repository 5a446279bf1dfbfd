"""Closed forms beside simulated figures: they hold, and what contradicts them is named."""

import numpy as np
import pandas as pd
import pytest

from busdoor import compare
from busdoor.comparison.bounds import bounds_table, violations
from busdoor.step_time import LinearStepTime
from busdoor.theory import batched_latency_s, lone_latency_s, shared_latency_s

FAST = {
    "step_time": {"name": "linear", "base_s": 0.02, "per_request_s": 0.0005},
    "kv": {"num_blocks": 8000, "max_model_len": 1024},
    "lookahead": 0,
}
LAWS = {"input_tokens": 1, "output_tokens": {"type": "geometric", "mean": 40}, "num_requests": 1500}


@pytest.fixture(scope="module")
def comparison():
    policies = [{"name": "static", "batch_size": 8}, {"name": "vllm"}]
    return compare({**LAWS, "arrival": 2.0}, policies, replications=1, seed=3, **FAST)


def test_simulated_figures_lie_beside_their_closed_forms(comparison):
    bounds = comparison.bounds
    assert not bounds["violated"].any() and violations(bounds) == []
    assert abs(bounds.loc[("vllm", "shared_e2e_s"), "error"]) < 0.05
    assert abs(bounds.loc[("static", "batched_e2e_s"), "error"]) < 0.15
    assert abs(bounds.loc[("static", "saturated_rps"), "error"]) < 0.05


def test_a_figure_below_its_floor_is_named(comparison):
    forms = comparison.forms
    first = comparison.summaries.xs(0, level="replication")
    figures = first.assign(saturated_request_throughput=1e9)
    wrong = bounds_table(forms, figures * 0.1)
    assert wrong.loc[("vllm", "lone_e2e_s"), "violated"]
    assert any("lone requests" in line for line in violations(wrong))


def test_a_short_run_has_no_steady_state_to_compare_with():
    """Six requests are no batch of 8, and fewer than the server holds at once."""
    few = {**LAWS, "output_tokens": 40, "num_requests": 6, "arrival": 20.0}
    policies = [{"name": "static", "batch_size": 8}, {"name": "vllm"}]
    bounds = compare(few, policies, replications=1, seed=3, **FAST).bounds
    assert violations(bounds) == []
    assert {key for _, key in bounds.index} == {"step_floor_s", "lone_e2e_s", "saturated_rps"}
    assert ("static", "saturated_rps") not in bounds.index


def test_the_folder_keeps_the_forms(comparison, tmp_path):
    again = type(comparison).load(comparison.save(tmp_path / "study"))
    pd.testing.assert_frame_equal(again.bounds, comparison.bounds)


def test_floors_and_queues_of_a_known_server():
    model, rng = LinearStepTime(base_s=0.01), np.random.default_rng(0)
    answers = rng.geometric(0.05, 400)
    alone = lone_latency_s(model, np.ones(400), answers)
    assert alone == pytest.approx(0.01 * answers.mean())
    # no cost per request: sharing costs nothing
    assert shared_latency_s(model, np.ones(400), answers, 5.0) == pytest.approx(alone, rel=0.02)
    assert shared_latency_s(model, np.ones(400), answers, 5.0, max_num_seqs=0.5) == np.inf
    assert batched_latency_s(answers, 2.0, 4, 1.0) == np.inf
    assert batched_latency_s(answers, 0.5, 4, 4.0) > 3 / (2 * 0.5)  # the wait for others
