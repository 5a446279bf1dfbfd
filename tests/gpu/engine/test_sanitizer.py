"""On a GPU: compute-sanitizer watches every memory access of a short replay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from busdoor.cli import main  # noqa: E402
from busdoor.results.result import Result  # noqa: E402

ROOT = Path(__file__).parents[3]
CONFIG = """
[kv]
num_blocks = 18
[[policy]]
name = "vllm"
max_num_seqs = 4
max_num_batched_tokens = 32
[[policy]]
name = "static"
batch_size = 2
"""
COMMAND = "import sys; from busdoor.cli import main; sys.exit(main(sys.argv[1:]))"


def write_inputs(folder):
    """Four requests that preempt each other, and the configuration."""
    rows = [
        {"arrival_s": 0, "input_tokens": 33 * i + 7, "output_tokens": 20 + 4 * i} for i in range(4)
    ]
    (folder / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(CONFIG)
    return [
        "replay",
        str(folder / "trace.jsonl"),
        "--config",
        str(folder / "run.toml"),
        "--out",
        str(folder / "out"),
    ]


def test_the_short_replay_puts_the_engine_through_it(tmp_path):
    assert (
        main(
            [
                *write_inputs(tmp_path),
                "--model",
                "tiny-llama",
                "--backend",
                "torch",
                "--clock",
                "cpu",
            ]
        )
        == 0
    )
    continuous, static = (Result.load(tmp_path / "out" / name) for name in ("vllm", "static"))
    mixed = continuous.iterations.query("num_prefill_tokens > 0 and num_decode_tokens > 0")
    assert len(mixed) and continuous.requests["num_preemptions"].sum() > 0
    assert (
        static.iterations["num_padded_tokens"].sum() > 0
        and (static.requests["status"] == "finished").all()
    )


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.skipif(
    shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not on PATH"
)
@pytest.mark.parametrize("flags", [[], ["--eager"]], ids=["graphs", "eager"])
def test_no_access_is_out_of_bounds(flags, tmp_path):
    """Chunked prefill, mixed steps and a preemption; padded graph decodes and eager ones."""
    watched = [
        "compute-sanitizer",
        "--tool",
        "memcheck",
        "--error-exitcode",
        "9",
        "--target-processes",
        "all",
    ]
    paths = [str(ROOT / part) for part in ("sim", "workloads", "gpu")]
    env = os.environ | {"PYTHONPATH": ":".join([*paths, os.environ.get("PYTHONPATH", "")])}
    # PyTorch hands out parts of larger pieces, past whose end the tool sees nothing wrong; graphs
    # need that
    if flags:
        env["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    command = [
        *watched,
        sys.executable,
        "-c",
        COMMAND,
        *write_inputs(tmp_path),
        "--model",
        "qwen3-0.6b",
        *flags,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout
