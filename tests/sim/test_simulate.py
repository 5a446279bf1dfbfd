"""One run: what it says about itself, and what it leaves when somebody stops it."""

import numpy as np
import pandas as pd
import pytest

from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import Interrupted, simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

TRACE = Trace(
    arrival_s=np.arange(5.0) * 10,
    input_tokens=np.full(5, 8),
    output_tokens=np.array([5, 5, 100, 5, 5]),
)


def policy():
    return VllmPolicy(
        PagedKV(100, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=512
    )


class StopsAt(LinearStepTime):
    """A step time at which somebody presses Ctrl-C once a batch holds the long request."""

    def line(self, batch):
        if any(chunk.request.request_id == 3 for chunk in batch.chunks):
            raise KeyboardInterrupt
        return super().line(batch)


def test_what_was_done_before_an_interruption_is_kept(tmp_path):
    with pytest.raises(Interrupted, match="stopped after 2 requests") as stopped:
        simulate(TRACE, policy(), StopsAt(base_s=1.0))
    Result.save(stopped.value.result, tmp_path)
    requests = Result.load(tmp_path).requests
    assert requests["status"].tolist() == ["finished"] * 2 + ["unfinished"] * 3
    assert requests["finish_s"].dropna().tolist() == pytest.approx([5, 15])
    assert requests["first_token_s"].dropna().tolist() == pytest.approx([1, 11, 21])


@pytest.mark.parametrize("csv", [False, True])
def test_a_result_comes_back_from_its_folder_to_the_bit(tmp_path, csv):
    result = simulate(TRACE, policy(), LinearStepTime(base_s=0.1, per_token_s=1e-3))
    again = Result.load(result.save(tmp_path, csv=csv))
    assert len(list(tmp_path.glob("*.csv"))) == 3 * csv
    for name in ("requests", "iterations", "stays"):
        left, right = getattr(result, name), getattr(again, name)
        assert list(left.columns) == list(right.columns)
        np.testing.assert_array_equal(
            left.drop(columns="status", errors="ignore"),
            right.drop(columns="status", errors="ignore"),
        )
    assert again.summary.drop("offered_load").equals(result.summary.drop("offered_load"))


def test_a_folder_without_a_result_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} holds no result: it has no meta.json"):
        Result.load(tmp_path)


def test_tables_in_parquet_ask_for_pyarrow_where_it_is_missing(tmp_path, monkeypatch):
    simulate(TRACE, policy(), LinearStepTime(base_s=0.1)).save(tmp_path)
    monkeypatch.setattr("busdoor.core.saved.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"reading .*requests\.parquet needs pyarrow: pip install pyarrow"
    ):
        Result.load(tmp_path)


def test_progress_is_told_to_the_end():
    told = []
    simulate(
        TRACE,
        policy(),
        LinearStepTime(base_s=0.1),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (5, 5)


def test_the_example_is_what_the_simulator_does():
    trace = Trace(
        arrival_s=np.zeros(4), input_tokens=[8] * 4, output_tokens=[10, 20, 50, 100], name="intro"
    )
    policy = VllmPolicy(
        PagedKV(100, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=512
    )
    simulated, example = (
        simulate(trace, policy, LinearStepTime(base_s=1.0), lookahead=0),
        Result.example(),
    )
    for table in ("requests", "iterations", "stays"):
        pd.testing.assert_frame_equal(getattr(example, table), getattr(simulated, table))
    assert {
        key: value
        for key, value in simulated.meta.items()
        if key in example.meta and key != "offered_load"
    } == {
        key: value for key, value in example.meta.items() if key not in ("offered_load", "complete")
    }
