"""A twin: measured, fitted, held against what the fit has not seen; all measured once."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pytest

pytest.importorskip("torch")

from busdoor.calibration import Calibration
from busdoor.cli import main
from busdoor.core.saved import write_table
from busdoor.results.result import Result
from busdoor.step_time.linear import LinearStepTime
from busdoor.validation import Validation
from busdoor.validation.regression import drifted
from busdoor_gpu.cli import twin as cli_twin
from busdoor_gpu.cli.flags import MachineFlags
from busdoor_gpu.replay.replay import ReplayError
from busdoor_gpu.twin import held_out_runs as module
from busdoor_gpu.twin import twin
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_runs import Machine, held_out_runs
from busdoor_gpu.twin.twin import make_twin
from busdoor_workloads import Trace

LIMITS = GridLimits(
    max_num_seqs=4,
    max_num_batched_tokens=64,
    max_model_len=128,
    num_blocks=48,
    max_prefill_tokens=256,
)
STEP_TIME = LinearStepTime(base_s=0.002, per_request_s=0.001)
# 0.4 of it is the profile's, enough for the grid twice: noisy cores may halve what is measured
BUDGET_S = 6.0


@pytest.fixture(scope="module")
def machine(models, torch_backend):
    return Machine(models["tiny-llama"], torch_backend, LIMITS, "paced")


@pytest.fixture(scope="module")
def made(machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "mine"
    reports = []
    calibration, validation = make_twin(
        machine, folder, BUDGET_S, report=lambda share, what: reports.append((share, what))
    )
    return folder, calibration, validation, reports


class TestTheRuns:
    """What is replayed: traces that the profile has not seen."""

    @pytest.fixture
    def runs(self, machine):
        return held_out_runs(machine, STEP_TIME, budget_s=60.0)

    def test_static_and_continuous_batching_serve_the_same_traces_where_both_can(self, runs):
        served = {}
        for run in runs:
            served.setdefault(run.trace.name, []).append(run)
        assert [[run.policy for run in own] for own in served.values()] == [
            ["vllm", "static"]
        ] * 3 + [["vllm"]] * 3
        assert all(run.trace is own[0].trace for own in served.values() for run in own)

    def test_loads_are_of_what_the_calibration_says_can_be_carried(self, runs, machine):
        def loads(policy, own):
            return [
                run.trace.request_rate
                / machine.policy(policy, run.trace).capacity_rps(run.trace, STEP_TIME)
                for run in own
            ]

        assert np.allclose(loads("static", runs[2:6:2]), [0.4, 0.75], rtol=0.05)
        assert np.allclose(loads("vllm", runs[6:]), [0.5, 0.75, 0.9], rtol=0.05)
        assert runs[0].trace.request_rate == inf

    def test_every_trace_is_drawn_apart_and_again_the_same(self, runs, machine):
        again = held_out_runs(machine, STEP_TIME, budget_s=60.0)
        assert all(
            np.array_equal(a.trace.arrival_s, b.trace.arrival_s)
            for a, b in zip(runs, again, strict=True)
        )
        firsts = {tuple(run.trace.output_tokens[:8]) for run in runs}
        assert len(firsts) == 6

    def test_rates_that_are_nearly_the_same_get_folders_of_their_own(self, machine, monkeypatch):
        trace = Trace(arrival_s=[0.0], input_tokens=[1], output_tokens=[1], name="rate_5")
        monkeypatch.setattr(module, "_loaded", lambda *args: trace)
        names = [run.name for run in held_out_runs(machine, STEP_TIME, budget_s=60.0)]
        assert len(set(names)) == 9

    def test_all_requests_can_be_served(self, runs):
        for run in runs:
            assert (run.trace.input_tokens + run.trace.output_tokens).max() <= LIMITS.max_model_len


class TestTheFolder:
    def test_has_every_step(self, made):
        folder, calibration, validation, reports = made
        assert Calibration.load(folder / "calibration.toml").step_time == calibration.step_time
        assert Result.load(folder / "profile").meta["trace"] == "profile"
        names = [run.name for run in validation.runs]
        assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted(names)
        assert [what for _, what in reports] == ["profile", *names, "simulating the runs"]
        assert [share for share, _ in reports] == sorted(share for share, _ in reports)

    def test_keeps_the_errors_as_a_gate(self, made):
        folder, _, validation, _ = made
        assert drifted(validation, json.loads((folder / "errors.json").read_text())) == []

    def test_the_simulator_repeats_every_batch_when_it_is_told_the_durations(self, made):
        assert {run.agreement["played"] for run in made[2].runs} == {1.0}

    def test_says_the_gain_or_the_e2e_ratio_of_each_pair(self, made):
        assert len(made[2].gain) + len(made[2].e2e_ratio) == 3


class TestBrokenOff:
    def test_goes_on_where_it_was(self, made, machine, tmp_path, monkeypatch):
        measured = []

        def counting(*args, **options):
            measured.append(args[1].name)
            if len(measured) == 3:
                raise ReplayError("interrupted", Result.example())
            return measure(*args, **options)

        measure = twin.measure
        monkeypatch.setattr(twin, "measure", counting)
        monkeypatch.setattr(twin, "measure_profile", lambda *args: Result.load(made[0] / "profile"))
        with pytest.raises(ReplayError):
            make_twin(machine, tmp_path / "mine", BUDGET_S)
        make_twin(machine, tmp_path / "mine", BUDGET_S)
        assert len(measured) == 1 + len(set(measured)) == 10, "only the third run is measured again"

    def test_a_step_whose_files_were_cut_off_is_measured_again(self, tmp_path, monkeypatch):
        def cut_off(table, stem, csv):
            if stem.name == "iterations":  # the requests are written already
                raise KeyboardInterrupt
            write_table(table, stem, csv)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("busdoor.results.result.write_table", cut_off)
            twin._once(tmp_path / "step", Result.example)
        assert len(twin._once(tmp_path / "step", Result.example).iterations)
        assert [path.name for path in tmp_path.iterdir()] == ["step"]

    def test_goes_on_with_the_memory_that_it_had(self, tmp_path, monkeypatch):
        """A GPU's free memory differs between starts; a few blocks make no other twin."""
        had = []
        monkeypatch.setattr(
            twin, "make_twin", lambda machine, *args: had.append(machine.limits.num_blocks) or 1 / 0
        )
        twin.claim(tmp_path, {"num_blocks": 77})
        with pytest.raises(ZeroDivisionError):
            cli_twin.twin(machine=MachineFlags(backend="torch"), out=tmp_path)
        assert had == [77]

    def test_refuses_a_folder_of_other_settings(self, made, machine):
        with pytest.raises(
            ValueError,
            match=r"mine has the steps of a twin with seed = 0, not 1; use the same settings",
        ):
            make_twin(machine, made[0], BUDGET_S, seed=1)


class TestTheCommand:
    FLAGS = (
        "--backend",
        "torch",
        "--max-num-seqs",
        "4",
        "--max-num-batched-tokens",
        "64",
        "--max-model-len",
        "128",
    )

    def test_prints_what_was_reached_and_writes_the_page(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(
            twin, "held_out_runs", lambda *args: held_out_runs(*args)[:2]
        )  # drawing takes the longest
        out = tmp_path / "mine"
        assert main(["twin", *self.FLAGS, "--budget", "6s", "--out", str(out), "--json"]) == 0
        printed, messages = capsys.readouterr()
        assert "gain of" in messages or "E2E ratio of" in messages
        assert set(json.loads(printed)["runs"]) == {path.name for path in (out / "runs").iterdir()}
        assert "</html>" in (out / "report.html").read_text()
        assert [run.name for run in Validation.load(out / "validation").runs] == [
            "burst-vllm",
            "burst-static",
        ]

    def test_what_is_broken_off_is_said_in_a_sentence(self, tmp_path, capsys, monkeypatch):
        def broken(*args):
            raise ReplayError("interrupted", Result.example())

        monkeypatch.setattr(twin, "make_twin", broken)
        assert main(["twin", *self.FLAGS, "--out", str(tmp_path)]) == 2
        assert f"the same command with --out {tmp_path} continues" in capsys.readouterr().err
        assert (tmp_path / "broken_off" / "meta.json").exists()

    def test_ctrl_c_says_so_and_has_its_own_exit_code(self, tmp_path, capsys, monkeypatch):
        def broken(*args):
            raise ReplayError("interrupted", Result.example()) from KeyboardInterrupt()

        monkeypatch.setattr(twin, "make_twin", broken)
        assert main(["twin", *self.FLAGS, "--out", str(tmp_path)]) == 130
        assert "interrupted; complete steps are in" in capsys.readouterr().err

    def test_limits_that_leave_nothing_to_fit_are_named(self, tmp_path, capsys):
        flags = [
            "--backend",
            "torch",
            "--max-num-seqs",
            "1",
            "--max-model-len",
            "40",
            "--budget",
            "1s",
        ]
        assert main(["twin", *flags, "--out", str(tmp_path)]) == 2
        assert (
            "too small to fit a step time to; give a larger --max-num-seqs"
            in capsys.readouterr().err
        )
