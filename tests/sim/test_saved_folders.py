"""What is read back from a folder is data: nothing that it names is imported, and what is wrong in it is a sentence."""

import json

import pytest

from busdoor import compare
from busdoor.calibration.playback import policy_of, trace_of
from busdoor.cli import main
from busdoor.result import Result

JOB = {"input_tokens": 20, "output_tokens": {"type": "uniform", "low": 2, "high": 9}}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A saved comparison, which nobody changes."""
    job = {**JOB, "request_rate": 5.0, "num_requests": 12}
    made = compare(job, ["static", "vllm"], replications=2, cluster={"replicas": 2}, kv={"num_blocks": 400})
    return made.save(tmp_path_factory.mktemp("saved") / "comparison")


@pytest.fixture
def saved(comparison, tmp_path):
    """Copy the comparison to where it may be changed."""
    from shutil import copytree

    return copytree(comparison, tmp_path / "saved")


def change(file, **changes):
    """Replace values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("command", ["report", "plot"])
def test_nothing_that_a_folder_names_is_called(saved, tmp_path, command, capsys):
    """The case 01_report_runs_code ran `touch`."""
    config = json.loads((saved / "comparison.json").read_text())["config"]
    touch = {"name": "subprocess:Popen", "args": ["touch", str(tmp_path / "ran")]}
    config["policy"][1] = {**touch, "label": "vllm"}
    config["step_time"] = touch
    config["cluster"]["router"] = touch
    change(saved / "comparison.json", config=config)
    assert main([command, str(saved)]) == 0, capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    if command == "report":
        assert "subprocess:Popen" in (saved / "report.html").read_text(encoding="utf-8")


def test_a_measured_runs_policy_is_not_imported():
    result = Result.example()
    meta = {**result.meta, "policy_config": {"name": "subprocess:Popen", "args": ["true"]}, "max_model_len": 512}
    with pytest.raises(ValueError, match="named by a saved folder, from which nothing is imported; name it with"):
        policy_of(meta, trace_of(result))
