"""The campaign's cases become fitting traces and policies, its replays a twin's folder."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.gpu.campaign import run
from benchmarks.gpu.campaign_cases import CASES, plans

from busdoor.results.result import Result
from busdoor.step_time.linear import LinearStepTime
from busdoor.validation.twin_folder import CALIBRATION, PROFILE, RUNS
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_runs import Machine

LIMITS = GridLimits(16, 256, 512, 1024)
STEP_TIME = LinearStepTime(base_s=0.01, per_token_s=1e-4)


@pytest.fixture(scope="module")
def drawn():
    return {made.name: made for made in plans(LIMITS, STEP_TIME, seconds=5, shrink=16)}


def test_every_case_is_drawn_once(drawn):
    assert list(drawn) == [case.name for case in CASES]


def test_no_request_is_longer_than_the_machine_takes(drawn):
    for made in drawn.values():
        assert (made.trace.input_tokens + made.trace.output_tokens).max() <= LIMITS.max_model_len, (
            made.name
        )
        assert made.kv.num_blocks <= LIMITS.num_blocks, made.name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("anyscale-0.60-static", "anyscale-0.60-vllm"),
        ("azure-conv-0.75", "azure-conv-0.75-prefill-first"),
    ],
)
def test_policies_are_compared_on_the_same_requests(drawn, one, other):
    assert drawn[one].trace.input_tokens.tolist() == drawn[other].trace.input_tokens.tolist()
    assert drawn[one].trace.arrival_s.tolist() == drawn[other].trace.arrival_s.tolist()


def test_a_higher_load_of_the_same_chats_brings_more_requests_in_the_same_time(drawn):
    rates = [
        drawn[f"azure-conv-{load}"].trace.request_rate for load in ("0.50", "0.75", "0.90", "1.15")
    ]
    assert rates == sorted(rates)


def test_a_run_leaves_a_twins_folder_and_stops_at_its_deadline(
    models, torch_backend, tmp_path, capsys
):
    machine = Machine(models["tiny-llama"], torch_backend, LIMITS, "cpu")
    run(machine, tmp_path, profile_s=1.5, each_s=0.2, deadline_s=0.0, shrink=16)
    assert (tmp_path / CALIBRATION).exists() and len(Result.load(tmp_path / PROFILE).iterations)
    assert not (tmp_path / RUNS).exists()
    assert capsys.readouterr().out.count("no time left") == len(CASES)
