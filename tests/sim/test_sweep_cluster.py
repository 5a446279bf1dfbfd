"""Sweeps on a real Dask cluster: scheduler and two workers, own processes, loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from distributed import Client

import busdoor.sweep.dask_cluster
from busdoor.sweep import Store, run_sweep

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LOCAL = ("--host", "127.0.0.1", "--no-dashboard")


class Cluster:
    """Processes of Dask's own commands; `kill` and `close` end them by their id."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = []
        self._start("scheduler", "--port", "0")

    def worker(self, **environment):
        return self._start("worker", "--nthreads", "1", "--no-nanny", **environment)

    @property
    def address(self):
        return json.loads(wait_for(self.file.read_text))["address"]

    def kill(self, process):
        process.kill()
        process.wait(10)

    def close(self):
        for process in reversed(self.processes):
            self.kill(process)

    def _start(self, what, *flags, **environment):
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            *LOCAL,
            "--scheduler-file",
            str(self.file),
        ]
        paths = os.pathsep.join(map(str, (HERE, ROOT / "sim", ROOT / "workloads")))
        settings = {**os.environ, "PYTHONPATH": paths, **environment}
        with (self.folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *flags], cwd=self.folder, env=settings, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process


def wait_for(what, seconds=30):
    deadline_s = time.monotonic() + seconds
    while True:
        try:
            return what()
        except (OSError, ValueError, IndexError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers, which are there."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.worker(), cluster.worker()
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield cluster
    cluster.close()


@pytest.fixture
def points(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from sweep_probe import probe_points

    return partial(probe_points, tmp_path / "log")


@pytest.fixture
def written(monkeypatch):
    counts = Counter()
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda store, record: (counts.update([record.key]), write(store, record))
    )
    return counts


def test_a_killed_worker_costs_no_result_and_doubles_none(cluster, points, written, tmp_path):
    planned = points(20, {5: {"fails": True}}, sleep_s=0.15)
    killed = []

    def kill_one(share, what):
        if share >= 0.2 and not killed:
            before = begun(tmp_path)
            number, pid = wait_for(
                lambda: begun(tmp_path)[len(before)]
            )  # it has begun this point a moment ago
            cluster.kill(next(process for process in cluster.processes if process.pid == pid))
            killed.append((number, pid))

    sweep = run_sweep(planned, tmp_path, cluster=cluster.address, report=kill_one)
    ((number, pid),) = killed
    assert sweep.table["status"].tolist() == ["done"] * 5 + ["failed"] + ["done"] * 14
    assert sweep.table["key"].is_unique
    assert written == {point.key: 1 for point in planned}
    ran = [pid for done, pid in begun(tmp_path) if done == number]
    assert len(ran) == 2
    assert ran[0] == pid != ran[1]
    assert os.getpid() not in {pid for _, pid in begun(tmp_path)}


def begun(folder):
    """Number of each point that was begun, and who did."""
    return [tuple(map(int, line.split())) for line in (folder / "log").read_text().splitlines()]


def test_a_worker_with_another_busdoor_is_named(cluster, points, tmp_path, monkeypatch):
    monkeypatch.setattr(busdoor.sweep.dask_cluster, "__version__", "99.0")
    with pytest.raises(
        ValueError, match=r"worker tcp://127\.0\.0\.1:\d+ has busdoor .*, not 99\.0 as here"
    ):
        run_sweep(points(1), tmp_path, cluster=cluster.address)


def test_a_cluster_without_workers_is_one_sentence(points, tmp_path, monkeypatch):
    monkeypatch.setattr(busdoor.sweep.dask_cluster, "FIRST_WORKER_S", 0.2)
    cluster = Cluster(tmp_path)
    try:
        with pytest.raises(
            ValueError, match=r"has no worker after 0\.2 s; start one: dask worker tcp://127"
        ):
            run_sweep(points(1), tmp_path, cluster=cluster.address)
    finally:
        cluster.close()


def test_a_dead_address_is_one_sentence_within_seconds(points, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    planned = points(1)
    began_s = time.monotonic()
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at {address} within 3 s"):
        run_sweep(planned, tmp_path, cluster=address)
    assert time.monotonic() - began_s < 10


def test_an_address_has_to_be_one(points, tmp_path):
    with pytest.raises(
        ValueError, match="--cluster lokal: it must be local, or a scheduler's address"
    ):
        run_sweep(points(1), tmp_path, cluster="lokal")


def test_a_cluster_that_goes_away_is_one_sentence_and_what_was_done_stays(
    cluster, points, tmp_path
):
    def end(share, what):
        if share > 0.1:
            cluster.close()

    with pytest.raises(ValueError, match=r"the cluster at tcp://127\.0\.0\.1:\d+ gave up"):
        run_sweep(points(40, sleep_s=0.1), tmp_path, cluster=cluster.address, report=end)
    assert 0 < len(list((tmp_path / "points").glob("*.parquet"))) < 40
