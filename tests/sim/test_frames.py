"""A data frame of requests is a workload wherever a trace is one, and means the same."""

import pandas as pd
import pytest

from busdoor import Trace, compare, find_capacity, profile, simulate
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.step_time.linear import LinearStepTime

TRACE = profile("azure-conv").generate(0, num_requests=120, request_rate=4.0)
FRAME = TRACE.to_frame()


def test_compare_takes_it():
    of_frame, of_trace = (
        compare(load, ["static", "vllm"], replications=2) for load in (FRAME, TRACE)
    )
    pd.testing.assert_frame_equal(of_frame.table, of_trace.table)


def test_find_capacity_takes_it():
    settings = {"policies": ["vllm"], "slo": "e2e_p99=60s", "replications": 4, "tolerance": 0.2}
    found = [find_capacity(load, **settings).table for load in (FRAME, TRACE)]
    pd.testing.assert_frame_equal(*found)


def test_simulate_takes_it():
    def finished(load):
        policy = VllmPolicy(
            PagedKV(4000, 16), max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=16384
        )
        return simulate(load, policy, LinearStepTime(base_s=0.01)).requests

    pd.testing.assert_frame_equal(finished(FRAME), finished(TRACE))


@pytest.mark.parametrize("ask", [compare, find_capacity])
class TestWhatIsWrong:
    def test_a_missing_column(self, ask):
        with pytest.raises(ValueError, match="output_tokens"):
            ask(FRAME.drop(columns="output_tokens"))

    def test_a_bad_row(self, ask):
        with pytest.raises(ValueError, match=r"^frame row 0: input_tokens is -5; it must be"):
            ask(FRAME.assign(input_tokens=[-5] + [9] * 119))

    def test_no_rows(self, ask):
        with pytest.raises(ValueError, match="frame has no request"):
            ask(FRAME.iloc[:0])

    def test_what_is_no_workload(self, ask):
        with pytest.raises(
            ValueError, match="workload is of type list; it must be a Trace, a data frame, a name"
        ):
            ask([1, 2, 3])


def test_names_of_ones_own_go_through_from_frame():
    log = FRAME.rename(columns={"input_tokens": "prompt"})
    with pytest.raises(ValueError, match="input_tokens"):
        compare(log)
    trace = Trace.from_frame(log, columns={"input_tokens": "prompt"})
    assert compare(trace, ["vllm"], replications=1).summaries["completed"].item() == 120
