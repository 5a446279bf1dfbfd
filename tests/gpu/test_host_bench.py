"""The host's time per step is measured on the path that a GPU takes, with no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.gpu.host import TARGET_US, format_times, main, measure

ROOT = Path(__file__).parents[2]


def test_a_mixed_step_through_a_graph_is_a_few_hundred_microseconds_and_launches_no_kernel(capsys):
    main(["--graphs-only", "--steps", "20", "--layers", "1"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split()[0] == "graph" and "600 us" in printed
    measured = measure(graphs=True, steps=40, layers=1)
    assert measured.launches == 0
    # Ten times the target, so that a busy machine passes and a loop over tokens or layers does not.
    assert measured.policy_us + measured.submit_us < 10 * TARGET_US, format_times([measured])


def test_kernel_by_kernel_each_layer_costs_five_launches_more():
    """In a process of its own: the driver that launches nothing stays. 165 launches are 5 per layer and 5 per step."""
    pytest.importorskip("triton")
    code = "from benchmarks.gpu.host import eager; print(eager(steps=3, layers=2).launches)"
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 15
