"""SIGINT in `busdoor recommend`: it answers with what is known, and the same study goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / root) for root in ("sim", "workloads"))
# The command, which says when a server's race is over, so that the test knows when to interrupt.
COMMAND = """
import sys
from busdoor.cli import main
from busdoor.recommend.study import Search
meets = Search._meets
def say(search, place):
    meets(search, place)
    print("met", file=sys.__stdout__, flush=True)
Search._meets = say
sys.exit(main(sys.argv[1:]))
"""
STUDY = """
[slo]
ttft_p99 = "2s"
[workload]
name = "azure-conv"
request_rate = 3
[recommend]
gpu = ["l40s", "h100"]
tp = [1]
max_num_seqs = [64]
max_num_batched_tokens = [8192]
chunked_prefill = [true]
"""


def command(tmp_path: Path, jobs: str) -> list[str]:
    (tmp_path / "study.toml").write_text(STUDY)
    flags = ["--config", "study.toml", "--jobs", jobs, "--out", "out", "--no-ladder", "--json"]
    return [sys.executable, "-c", COMMAND, "recommend", *flags]


def started(tmp_path: Path, jobs: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(tmp_path, jobs), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOTS},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for a process group there")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_signal_answers_with_what_is_known_and_the_study_goes_on(
    tmp_path: Path, jobs: str
) -> None:
    process = started(tmp_path, jobs)
    assert process.stdout is not None
    assert any(line == "met\n" for line in iter(process.stdout.readline, ""))
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    early = json.loads(out.strip().splitlines()[-1])
    assert early["winner"]["servers"] == "1 × l40s" and not early["complete"]
    assert "ended early" in early["verdict"] and early["runner_up"] is None
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/points").iterdir()}

    whole = started(tmp_path, jobs)
    out, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    found = json.loads(out.strip().splitlines()[-1])
    assert found["complete"] and found["winner"]["servers"] == "1 × l40s"
    assert found["runner_up"]["servers"] == "1 × h100"
    now = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/points").iterdir()}
    assert kept.items() <= now.items() and len(now) > len(kept)  # nothing runs twice
