"""SIGINT, SIGTERM in `busdoor capacity`: done rows are kept, others claim nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / root) for root in ("sim", "workloads"))
# The command, saying which rate it tries, so that the test knows when to interrupt.
COMMAND = """
import sys
from busdoor.capacity.study import Study
from busdoor.cli import main
report = Study._report_try
say = lambda label: print("trying", label, file=sys.__stdout__, flush=True)
Study._report_try = lambda study, label, rate, length: (say(label), report(study, label, rate, length))
sys.exit(main(sys.argv[1:]))
"""
QUICK_THEN_LONG = [
    "--policy",
    "dynamic",
    "--policy",
    "vllm",
    "--num-requests",
    "2000",
    "--tolerance",
    "0.001",
]


def interrupted(
    arguments: list[str], folder: Path, by: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Run the command; signal its whole process group while at vllm, as a terminal does."""
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "capacity",
        *QUICK_THEN_LONG,
        *arguments,
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": ROOTS},
    )  # fmt: skip
    assert process.stdout is not None
    assert any(line == "trying vllm\n" for line in iter(process.stdout.readline, ""))
    os.killpg(process.pid, by)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for a process group there")
@pytest.mark.parametrize(("jobs", "by"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_signal_keeps_the_rows_that_are_done(
    tmp_path: Path, jobs: str, by: signal.Signals
) -> None:
    done = interrupted(["--slo", "tpot_p99=100ms", "--json", "--jobs", jobs], tmp_path / "out", by)
    assert done.returncode == 128 + by, done.stderr
    assert "Traceback" not in done.stderr and "Interrupted: " in done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    written = json.loads((tmp_path / "out" / "capacity.json").read_text())
    assert told["policies"] == written["policies"] and written["complete"] is False
    assert (
        "released whole" in written["policies"]["dynamic"]["reason"]
        and "vllm" not in written["policies"]
    )
