"""Importing the kernels needs neither Triton nor a GPU, and touches none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as where no wheel exists
import torch
from benchmarks.gpu import resources
from benchmarks.gpu import kernels
from busdoor_gpu.kernels.swiglu import swiglu, swiglu_reference
x = torch.ones(1, 4)
assert swiglu_reference(x).shape == (1, 2)
assert not torch.cuda.is_initialized()
try:
    swiglu(x)
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_triton_the_references_work_and_the_kernels_say_what_is_missing():
    env = {"PYTHONPATH": f"{ROOT / 'gpu'}:{ROOT}", "PATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "needs the package triton (Linux only); use the torch backend" in run.stdout
