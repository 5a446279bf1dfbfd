"""Runs that stream into a folder: their tables, on one process or several, and their command."""

import gc
import json
import os
import subprocess
import sys
import time
from signal import SIGTERM

import numpy as np
import pandas as pd
import pytest

from busdoor.cli import main
from busdoor.cluster.streamed import simulate_windows
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.config.streamed import run_streamed
from busdoor.config.windows import Windows, is_long
from busdoor.kv.paged import PagedKV
from busdoor.policies import VllmPolicy
from busdoor.results.hourly import HourlyResult
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.replica import Replica
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace, resolve
from busdoor_workloads.formats import write_trace
from busdoor_workloads.windows import windows_of

pytest.importorskip("pyarrow")
TABLES = {
    "policy": "vllm",
    "kv": {"num_blocks": 4000},
    "cluster": {"replicas": 3, "router": "round_robin"},
    "slo": {"ttft": 0.5, "tpot": 0.05},
}
WEEK = {"process": "weekly", "request_rate": 4.0, "burst_factor": 3}


def config(**changes):
    laws = {"name": "azure-conv", "duration_s": 400, "arrival": WEEK}
    return Config.from_table({"workload": laws, **TABLES, **changes})


def streamed(settled, folder, **options):
    folder.mkdir()
    return run_streamed(settled, settled.policies[0], folder, **options)


def all_requests(result, columns=None):
    return pd.concat(result.requests(columns), ignore_index=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the result of a trace file, streamed and in memory."""
    folder = tmp_path_factory.mktemp("both")
    trace = resolve("azure-conv").generate(seed=2, num_requests=1500, request_rate=12)
    write_trace(trace, folder / "trace.csv")
    settled = config(workload={"path": str(folder / "trace.csv")})
    trace = settled.workload.trace()
    whole = run(settled, settled.policies[0], trace, limits_for(settled, [trace]))
    return streamed(settled, folder / "out"), whole


def test_requests_are_those_of_the_run_in_memory(both):
    result, whole = both
    own = all_requests(result).sort_values("request_id", ignore_index=True)
    pd.testing.assert_frame_equal(own, whole.requests, rtol=1e-12, check_dtype=False)
    arrived = all_requests(result, ["replica", "released_s"])
    assert arrived.groupby("replica")["released_s"].is_monotonic_increasing.all()


def test_the_summary_is_that_of_the_run_in_memory(both):
    result, whole = both
    left_out = {key for key in whole.summary.index if key not in result.summary.index}
    assert left_out == {
        "max_output_tokens_per_s",
        "max_concurrent_requests",
        "saturated",
        "saturated_request_throughput",
        "saturated_output_throughput",
    }
    assert result.summary["percentile_error"] == 0.0
    for key in set(whole.summary.index) - left_out - {"offered_load"}:  # that is of a sample
        expected = pytest.approx(whole.summary[key], rel=1e-9, nan_ok=True)
        assert result.summary[key] == expected, key
    assert result.summary["offered_load"] == pytest.approx(whole.summary["offered_load"], rel=0.05)


def test_hours_add_up(both):
    result, whole = both
    for table in (result.hours, result.replica_hours):
        assert table["arrivals"].sum() == 1500
        assert table["output_tokens"].sum() == whole.summary["total_output_tokens"]
    share = np.average(result.hours["slo_share"], weights=result.hours["arrivals"])
    assert share == pytest.approx(whole.slo(ttft=0.5, tpot=0.05))
    [p99] = result.hours["ttft_p99_s"]
    assert p99 == pytest.approx(whole.summary["p99_ttft_ms"] / 1e3, rel=0.005)
    assert 0 < result.hours["busy_share"][0] <= 1


def test_the_last_hour_may_have_no_arrivals(tmp_path):
    laws = {"name": "azure-conv", "request_rate": 2.0, "num_requests": 7200}
    slow = {"name": "linear", "base_s": 0.3}
    hours = streamed(config(workload=laws, step_time=slow), tmp_path / "out").hours
    assert hours["arrivals"].tolist()[-1] == 0 and hours["arrivals"].sum() == 7200
    assert (hours["finished"] == hours["arrivals"]).all()
    assert hours["busy_share"].between(0, 1).all() and hours["slo_share"].isna().iloc[-1]


def test_a_folder_is_read_back(both):
    result, _ = both
    again = HourlyResult.load(result.folder)
    pd.testing.assert_frame_equal(again.hours, result.hours)
    pd.testing.assert_series_equal(again.summary, result.summary, check_dtype=False)
    assert len(all_requests(again)) == 1500
    with pytest.raises(ValueError, match="HourlyResult reads it"):
        Result.load(result.folder)
    with pytest.raises(ValueError, match=r"has no hours\.csv"):
        HourlyResult.load(result.folder.parent)


def test_two_processes_write_the_folder_of_one(tmp_path):
    for jobs in (1, 2):
        streamed(config(), tmp_path / str(jobs), jobs=jobs)
    one, two = ({path.relative_to(tmp_path / jobs): path.read_bytes()
                 for path in (tmp_path / jobs).rglob("*.*")} for jobs in "12")  # fmt: skip
    assert one == two and len(one) == 7


def test_a_router_that_looks_at_the_servers_runs_in_one_process(tmp_path):
    cluster = {"replicas": 2, "router": "least_outstanding"}
    result = streamed(config(cluster=cluster), tmp_path / "out", jobs=2)
    assert result.summary["completed"] == result.meta["num_requests"] > 500


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"name": "azure-code"}, "arrivals cannot be drawn in windows"),
        ({"name": "azure-conv", "request_rate": 4.0, "time_scale": None}, None),
        ({"name": "azure-conv", "time_scale": 2.0}, "time_scale = 2.0"),
        ({"name": "azure-conv", "request_rate": 1e6, "num_requests": 10**13}, "GiB"),
    ],
)
def test_what_cannot_stream_is_refused(tmp_path, workload, words):
    given = {key: value for key, value in workload.items() if value is not None}
    settled = config(workload=given)
    assert not is_long(settled) or words == "GiB"
    if words is None:
        assert Windows(settled).num_requests == 1000
        return
    with pytest.raises(ValueError, match=words):
        streamed(settled, tmp_path / "out")


def test_a_million_requests_stream():
    for wanted, long in ((999_999, False), (1_000_000, True)):
        laws = {"name": "azure-conv", "request_rate": 4.0, "num_requests": wanted}
        assert is_long(config(workload=laws)) == long


def test_prefill_and_decode_apart_are_no_long_run(tmp_path):
    laws = {"name": "azure-conv", "request_rate": 4.0, "num_requests": 1_000_000}
    pools = [{"role": role, "replicas": 1} for role in ("prefill", "decode")]
    settled = config(workload=laws, cluster={"pool": pools, "link_bytes_per_s": 1e10})
    assert not is_long(settled)
    with pytest.raises(ValueError, match="do not run window by window; leave out --stream"):
        streamed(settled, tmp_path / "out")


def test_a_long_file_whose_requests_wait_for_answers_is_no_long_run(tmp_path, monkeypatch):
    monkeypatch.setattr("busdoor.config.windows.EXACT", 3)
    columns = {"arrival_s": [0, 1, 2], "input_tokens": [1, 1, 1], "output_tokens": [1, 1, 1]}
    sessions = {"session_id": [0, 0, 1], "turn": [0, 1, 0]}
    for more, long in (({}, True), (sessions, False), ({"concurrency": 2}, False)):
        file = tmp_path / f"trace-{'-'.join(more)}.jsonl"
        write_trace(Trace(**columns, **more), file)
        assert is_long(config(workload={"path": str(file)})) == long


def test_the_command_streams_a_toml_file(tmp_path, capsys):
    toml = tmp_path / "study.toml"
    toml.write_text(
        'policy = "vllm"\n[workload]\nname = "azure-conv"\nrequest_rate = 3\nnum_requests = 300\n'
        '[slo]\nttft = "1s"\n'
    )
    out = tmp_path / "out"
    assert main(["simulate", str(toml), "--stream", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["completed"] == 300
    assert main(["plot", str(out)]) == 0
    assert (out / "plots" / "hours.png").stat().st_size > 10_000
    assert main(["report", str(out)]) == 0
    assert "hour" in (out / "report.html").read_text()
    for flag, words in (("--step-by-step", "every iteration"), ("--csv", "every iteration")):
        assert main(["simulate", str(toml), "--stream", flag]) == 2
        assert words in capsys.readouterr().err
    assert main(["simulate", str(toml), "--jobs", "2"]) == 2
    assert "applies only to a run that streams" in capsys.readouterr().err
    assert main(["simulate", str(toml), "--config", str(toml)]) == 2
    assert "both TOML files" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals of a process group")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_ends_a_run_and_what_is_done_is_kept(tmp_path, jobs):
    toml = tmp_path / "study.toml"
    toml.write_text(
        'policy = "vllm"\n[workload]\nname = "azure-conv"\nduration_s = 1000000\n'
        "request_rate = 2\n[cluster]\nreplicas = 2\nrouter = 'round_robin'\n"
    )
    command = [sys.executable, "-m", "busdoor", "simulate", str(toml), "--out", "out", "--jobs"]
    process = subprocess.Popen(
        [*command, str(jobs)], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s and not any(
            file.stat().st_size > 50_000 for file in tmp_path.rglob("*.parquet")
        ):
            time.sleep(0.1)
            assert process.poll() is None
        os.killpg(process.pid, SIGTERM)  # SIGINT is ignored where tests run in the background
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + SIGTERM and "what was done is kept" in told
    result = HourlyResult.load(tmp_path / "out")
    assert not result.meta["complete"]
    assert len(all_requests(result, ["request_id"])) == result.meta["num_requests"] > 1000


def test_the_clients_of_a_window_that_is_over_take_no_memory():
    trace = Trace(arrival_s=range(60), input_tokens=[8] * 60, output_tokens=[2] * 60)
    policy = VllmPolicy(PagedKV(100, 16), 4, 64, 512)
    alive = []

    def look(start_s):
        alive.append(sum(isinstance(one, Clients) for one in gc.get_objects()))

    sink = {0: lambda *tables: None}
    gc.disable()
    try:
        simulate_windows(
            windows_of(trace, window_s=10),
            [Replica(policy, LinearStepTime(base_s=0.1))],
            sink,
            at_window=look,
        )
    finally:
        gc.enable()
    assert max(alive) - alive[0] <= 1
