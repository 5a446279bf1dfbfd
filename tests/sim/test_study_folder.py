"""One folder, one study: checked before it runs, written before it prints, never mixed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from busdoor import Result
from busdoor.cli import main
from busdoor.core.json import plain, read_object, to_json
from busdoor.core.study_folder import study_folder
from busdoor.core.study_paths import folder_names, locked

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / root) for root in ("sim", "workloads"))
COMMAND = "import sys; from busdoor.cli import main; sys.exit(main(sys.argv[1:]))"
QUICK = ["--workload", "azure-conv", "--rate", "5", "--num-requests", "20", "--policy", "vllm"]
# What each command needs beside --out. None of them gets as far as running.
COMMANDS = {
    "simulate": ["azure-conv"],
    "compare": [],
    "capacity": [],
    "demo": [],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_runs(monkeypatch):
    """Fail where anything is drawn or run."""

    def ran(*arguments, **options):
        raise AssertionError("it ran")

    for what in ("config.workload.WorkloadTable.trace", "comparison.demo.introductory_scenario"):
        monkeypatch.setattr(f"busdoor.{what}", ran)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("out", "says"),
    {
        "f": "f is a file, but a study is a folder",
        "f/sub": "",
        "full": "full holds meta.json; one folder holds one study",
        "notes": "notes holds notes.txt; one folder holds one study",
        "notes --overwrite": "notes holds notes.txt and no study of busdoor",
    }.items(),
)
def test_a_folder_that_cannot_take_the_study_is_refused_before_it_runs(
    here, no_runs, capsys, command, out, says
):
    (here / "f").touch()
    for folder, name in (("full", "meta.json"), ("notes", "notes.txt")):
        (here / folder).mkdir()
        (here / folder / name).write_text("{}")
    assert main([command, *COMMANDS[command], "--out", *out.split()]) == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == [
        "f",
        "full",
        "notes",
    ]  # nothing half-written either


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_timeline_that_cannot_be_written_is_refused_before_it_runs(no_runs, capsys, command):
    assert (
        main([command, *COMMANDS[command], "--out", "o", "--perfetto", "missing/timeline.json"])
        == 2
    )
    assert "--perfetto missing/timeline.json: there is no folder missing" in capsys.readouterr().err


def test_an_earlier_study_is_replaced_whole(here, capsys):
    flags = ["simulate", "azure-conv", "--num-requests", "10", "--out", "o"]
    assert main([*flags, "--policy", "orca"]) == 0
    (here / "o" / "plan.csv").write_text("stale")
    assert main([*flags, "--policy", "vllm"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*flags, "--policy", "vllm", "--overwrite"]) == 0
    assert Result.load("o").meta["policy"] == "vllm" and not (here / "o" / "plan.csv").exists()
    assert [path.name for path in here.iterdir()] == ["o"]


def test_two_runs_at_once_are_two_folders(here):
    with study_folder("o") as first, study_folder("o") as second:
        for place, text in ((first, "1"), (second, "2")):
            (place.part / "meta.json").write_text(text)
        assert (first.publish(), second.publish()) == (Path("o"), Path("o-2"))
    assert (here / "o" / "meta.json").read_text() == "1" and (
        here / "o-2" / "meta.json"
    ).read_text() == "2"


def test_a_folder_that_we_are_in_is_filled(here):
    (here / ".gitkeep").touch()
    with study_folder(".") as place:
        (place.part / "meta.json").write_text("{}")
        (place.part / "plots").mkdir()
        assert place.publish() == Path()
    assert sorted(path.name for path in here.iterdir()) == [".gitkeep", "meta.json", "plots"]


def test_what_is_worth_keeping_is_kept_if_the_rest_fails(here, monkeypatch, capsys):
    def fails(*arguments):
        raise ValueError("no picture of this")

    monkeypatch.setattr("busdoor.comparison.folder.save_plots", fails)
    assert main(["compare", *QUICK, "--replications", "1", "--out", "o"]) == 2
    assert capsys.readouterr().err.endswith("busdoor: no picture of this\n")
    assert read_object(here / "o" / "comparison.json")["complete"] is True


def test_a_folder_is_locked_for_one_process_at_a_time(here):
    (here / "twin.json").touch()
    with (
        locked(here),
        pytest.raises(ValueError, match="is being written by another busdoor"),
        locked(here),
    ):
        pass
    with locked(here):
        pass
    assert [path.name for path in here.iterdir()] == ["twin.json"]


def test_every_label_has_a_folder_of_its_own_within_the_study():
    labels = ["a b", "a-b", "A b", "..", "/etc", "../../x", "x" * 300, "漢字" * 100, ""]
    names = folder_names(labels)
    assert len({name.casefold() for name in names.values()}) == len(labels)
    assert all(
        name and "/" not in name and name.strip(".") and len(name.encode()) < 255
        for name in names.values()
    )


def test_json_has_neither_nan_nor_infinity():
    nan, inf = float("nan"), float("inf")
    assert json.loads(to_json({"a": [nan, {"b": inf}], "c": -inf})) == {
        "a": [None, {"b": None}],
        "c": None,
    }
    assert plain(Result.example().summary.to_dict())["offered_load"] is None


def busdoor(arguments, here, **environment):
    """Return the process of a command, its stdout a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ROOTS, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_closed_pipe_loses_nothing(here, stderr_too):
    process = busdoor(["compare", *QUICK, "--replications", "1", "--out", "o"], here)
    process.stdout.close()
    if stderr_too:
        process.stderr.close()
    else:
        assert b"Error" not in process.stderr.read()
        process.stderr.close()
    assert process.wait(60) == 141
    assert read_object(here / "o" / "comparison.json")["complete"] is True
    assert (here / "o" / "plots" / "compare.svg").exists()


def test_an_ascii_terminal_gets_near_characters(here):
    process = busdoor(
        ["compare", *QUICK, "--replications", "1", "--out", "o"],
        here,
        PYTHONIOENCODING="ascii",
        LANG="C",
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and b"Error" not in err
    assert out.isascii() and b"offered load" in out
    assert (here / "o" / "comparison.json").exists()


# The command, which waits in the second draw, and says so, so that the test knows when to
# interrupt.
WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from busdoor.cli import main
from busdoor.comparison.experiment import Experiment
draw = Experiment._serve
def serve(experiment, policy, trace, key, *rest):
    if key[1] == 1:
        print("in the second draw", file=sys.__stdout__, flush=True)
        time.sleep(120)
    return draw(experiment, policy, trace, key, *rest)
Experiment._serve = serve
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_draws_that_are_done(here, how):
    command = [
        sys.executable,
        "-c",
        WAITING,
        "compare",
        *QUICK,
        "--replications",
        "3",
        "--out",
        "o",
        "--json",
    ]
    process = subprocess.Popen(
        command,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ROOTS},
    )
    assert process.stdout.readline() == "in the second draw\n"
    os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + how and "Traceback" not in err
    saved = read_object(here / "o" / "comparison.json")
    assert saved["complete"] is False and saved["replications"] == 1
    assert json.loads(out)["policies"] == saved["policies"] and out.count("\n") == 1
    assert (here / "o" / "plots" / "compare.svg").exists()
