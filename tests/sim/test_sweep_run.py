"""Sweeps here: what is finished stays, failures say why, killed processes lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import busdoor.sweep.run
from busdoor.cli import main
from busdoor.sweep import Store, plan, run_sweep
from busdoor.sweep.executors import require

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Its manager thread warns of the very worker that a test has killed.
BEREAVED = "ignore:A worker stopped while some jobs were given to the executor:UserWarning"


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Points of a policy on sweep_probe.py's step-time model, which other processes import."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(map(str, (HERE, ROOT / "sim", ROOT / "workloads")))
    )

    from sweep_probe import probe_points

    return partial(probe_points, tmp_path / "log")


@pytest.fixture
def runs(tmp_path):
    """How often each point was run."""
    return lambda: Counter(
        int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()
    )


@pytest.fixture
def written(monkeypatch):
    """How often each point's record was written."""
    counts = Counter()
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda store, record: (counts.update([record.key]), write(store, record))
    )
    return counts


def test_a_point_that_fails_is_recorded_and_the_rest_go_on(probe, tmp_path):
    sweep = run_sweep(probe(4, {1: {"fails": True}}), tmp_path, jobs=1)
    assert sweep.table["status"].tolist() == ["done", "failed", "done", "done"]
    assert sweep.table["error"][1] == "RuntimeError: the probe failed"
    assert sweep.table["completed"].isna().tolist() == [False, True, False, False]
    assert "sweep_probe.py" in sweep.records[sweep.points[1].key].traceback


def test_a_configuration_that_cannot_be_is_recorded_too(tmp_path):
    points = plan({"policy": "vllm", "workload": {"num_requests": 3}, "replications": 1,
                   "sweep": {"gpu.model": ["llama-3.1-70b", "llama-3.1-8b"]}})  # fmt: skip
    table = run_sweep(points, tmp_path, jobs=1).table
    assert table["status"].tolist() == ["failed", "done"]
    assert "does not fit" in table["error"][0]


def test_a_second_run_skips_what_is_finished_and_tries_again_what_failed(probe, runs, tmp_path):
    points = probe(3, {1: {"fails": True}})
    run_sweep(points, tmp_path, jobs=1)
    more = probe(4, {1: {"fails": True}})
    again = run_sweep(more, tmp_path, jobs=1)
    assert runs() == {0: 1, 1: 2, 2: 1, 3: 1}
    assert again.table["status"].tolist() == ["done", "failed", "done", "done"]


def test_every_point_is_on_disk_when_the_next_one_begins(probe, tmp_path):
    seen = []
    run_sweep(
        probe(3),
        tmp_path,
        jobs=1,
        report=lambda *about: seen.append(len(list((tmp_path / "points").glob("*.parquet")))),
    )
    assert seen == [0, 1, 2, 3]


def test_the_table_has_parameters_and_mean_metrics_and_is_saved_twice(tmp_path):
    points = plan(
        {
            "policy": ["static", "vllm"],
            "workload": {"num_requests": 20},
            "replications": 2,
            "slo": {"ttft_p99": "2s"},
            "gpu": {"price_per_hour": 3.6},
            "sweep": {"workload.request_rate": [2.0, 20.0]},
        }
    )
    sweep = run_sweep(points, tmp_path, jobs=1)
    sweep.save(tmp_path)
    table = sweep.table
    assert table[["workload.request_rate", "policy"]].to_numpy().tolist() == [
        [2.0, "static"], [2.0, "vllm"], [20.0, "static"], [20.0, "vllm"],
    ]  # fmt: skip
    both = sweep.replications.groupby("key", sort=False)["mean_ttft_ms"].mean()
    assert both[table["key"]].to_numpy() == pytest.approx(table["mean_ttft_ms"])
    assert table["slo_met"][1] == 1.0
    assert (
        (table["cost_per_million_output_tokens"] * table["output_throughput"] / 1000)
        .between(0.9, 1.2)
        .all()
    )
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sweep.parquet"), table)
    assert pd.read_csv(tmp_path / "sweep.csv")["key"].tolist() == table["key"].tolist()


@pytest.mark.filterwarnings(BEREAVED)
def test_a_killed_process_costs_no_result_and_a_point_that_kills_its_process_fails_alone(
    probe, runs, written, tmp_path
):
    (tmp_path / "words").touch()
    points = probe(
        10, {3: {"last_words": str(tmp_path / "words")}, 6: {"kills": True}}, sleep_s=0.02
    )
    sweep = run_sweep(points, tmp_path, jobs=2)
    assert sweep.table["status"].tolist() == ["done"] * 6 + ["failed"] + ["done"] * 3
    assert sweep.table["error"][6] == busdoor.sweep.run._DIED
    assert written == {point.key: 1 for point in points}
    assert runs()[3] > 1
    assert 1 <= runs()[6] <= 2  # once only, if it had not begun when point 3 took the others along


POINTS = 40
FIRST = 4  # as many as two workers are given singly; those that follow wait for the gate
STUDY = """
policy = "vllm"
replications = 1
[workload]
num_requests = 3
[step_time]
name = "sweep_probe:Probe"
sleep_s = 0.02
log = "log"
gate = "gate"
gated = {first}
[sweep]
"step_time.number" = {numbers}
"""


@pytest.mark.parametrize(
    ("how", "where"),
    [
        (signal.SIGKILL, []),
        (signal.SIGINT, []),
        (signal.SIGTERM, []),
        (signal.SIGTERM, ["--cluster", "local"]),
    ],
)
def test_a_driver_that_is_killed_or_interrupted_goes_on_where_it_was(
    probe, runs, tmp_path, monkeypatch, how, where
):
    (tmp_path / "study.toml").write_text(STUDY.format(numbers=list(range(POINTS)), first=FIRST))
    if where:
        pytest.importorskip("distributed")
    code, said, complaint, store = stopped(tmp_path, how, where)
    assert len(list(store.glob("*.parquet"))) == FIRST
    if how != signal.SIGKILL:
        assert code == 128 + how
        assert f"{FIRST} done, 0 failed, {POINTS - FIRST} not run" in said
        assert "Traceback" not in complaint
        counts = pd.read_parquet(tmp_path / "out" / "sweep.parquet")["status"].value_counts()
        assert counts["done"] == FIRST
        assert json.loads((tmp_path / "out" / "sweep.json").read_text())["complete"] is False
    (tmp_path / "gate").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "study.toml", "--out", "out", "--jobs", "1"]) == 0
    assert len(list(store.glob("*.parquet"))) == POINTS
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["complete"] is True
    assert set(runs()) == set(range(POINTS))
    assert all(
        runs()[number] == 1 for number in range(FIRST)
    )  # nothing that was kept has run again


def stopped(folder, how, where):
    """Start the command, stop it at the first points; return its exit code and what it said.

    Nothing depends on how fast the machine is: the other points wait. Ctrl-C goes to all processes,
    as in a terminal.
    """
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from busdoor.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "sweep",
        "study.toml",
        "--out",
        "out",
        "--jobs",
        "2",
        *where,
    ]
    store = folder / "out" / "points"
    with (folder / "said").open("w") as said, (folder / "complaint").open("w") as complaint:
        driver = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=complaint, start_new_session=True
        )
        wait_for(lambda: len(list(store.glob("*.parquet"))) == FIRST)
        (os.killpg if how == signal.SIGINT else os.kill)(driver.pid, how)
        driver.wait(60)
    workers = {int(line.split()[1]) for line in (folder / "log").read_text().splitlines()}
    if how == signal.SIGKILL:  # the driver could not end them: they end with it by themselves
        wait_for(lambda: not any(map(alive, workers)), patience_s=2)
    assert not [pid for pid in workers if alive(pid)]
    return (
        driver.returncode,
        (folder / "said").read_text(),
        (folder / "complaint").read_text(),
        store,
    )


def wait_for(done, patience_s=120):
    """Wait until `done` is true."""
    deadline_s = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def alive(pid):
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    psutil = pytest.importorskip("psutil")
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_command_prints_the_table_and_its_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'policy = ["static", "vllm"]\nreplications = 1\n[workload]\nnum_requests = 20\n'
        '[sweep]\n"gpu.name" = ["h100", "l40s"]\n'
    )
    assert main(["sweep", "mine.toml", "--jobs", "1", "--json"]) == 0
    line, err = capsys.readouterr()
    shown = err.splitlines()
    assert sum("l40s" in row for row in shown) == 2
    assert "4 points: 4 done, 0 failed, 0 not run." in shown
    assert [row["policy"] for row in json.loads(line)["table"]] == [
        "static",
        "vllm",
        "static",
        "vllm",
    ]
    assert (tmp_path / "busdoor-sweep-mine" / "sweep.csv").exists()


def test_if_every_point_fails_the_command_does(probe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(
        STUDY.format(numbers=[1, 2], first=9).replace("sleep_s = 0.02", "fails = true")
    )
    assert main(["sweep", "study.toml", "--jobs", "1"]) == 2
    assert (
        "every point failed; the first: RuntimeError: the probe failed" in capsys.readouterr().err
    )


def test_a_missing_package_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"needs no_such, which is not installed: pip install 'busdoor\[sweep\]'"
    ):
        require("pyarrow", "no_such")


def test_jobs_have_to_make_sense(probe, tmp_path):
    with pytest.raises(ValueError, match="--jobs 0: it must be 1 or more, or -1"):
        run_sweep(probe(1), tmp_path, jobs=0)
