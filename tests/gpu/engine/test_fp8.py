"""A KV cache of 8 bits: the engine's tokens, its memory, its flag."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from busdoor.cli import main  # noqa: E402
from busdoor.results.result import Result  # noqa: E402
from busdoor_gpu.engine.footprint import block_bytes  # noqa: E402
from busdoor_gpu.engine.model import load_model  # noqa: E402
from busdoor_gpu.engine.place import settle_place  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402
from busdoor_gpu.twin.grid import GridLimits  # noqa: E402
from busdoor_gpu.twin.held_out_runs import Machine  # noqa: E402
from busdoor_gpu.twin.twin import claim  # noqa: E402

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def small():
    """A tiny model with a cache of 8 bits."""
    return load_model("tiny-llama", "cpu", kv_dtype=FP8)


def outputs(trace, policy, model, backend):
    return replay(trace, policy, model, backend, clock="cpu", keep_outputs=True).meta["outputs"]


def test_every_policy_gives_the_same_tokens_and_they_are_not_those_of_32_bits(
    small, policies, torch_backend, new_trace
):
    """Rounding a token's keys depends on nothing but the token, however its batch is made."""
    trace = new_trace(seed=3)
    names = ("vllm", "vllm chunked", "vllm preempting", "vllm prefix cache", "static", "orca")
    runs = [outputs(trace, policies[name](), small, torch_backend) for name in names]
    for one, other in pairwise(runs):
        assert one == other
    plain = replace(small, kv_dtype=torch.float32)
    exact = outputs(trace, policies["vllm"](), plain, torch_backend)
    assert exact != runs[0]
    assert exact.keys() == runs[0].keys()


def test_a_block_takes_a_quarter_of_its_bytes_in_32_bits(small):
    sizes = [block_bytes(small.config, dtype, 16) for dtype in (FP8, torch.float32)]
    assert sizes == [2048, 8192]
    shape = small.config.shape  # the simulator's own count
    assert sizes[0] == 16 * shape.kv_bytes_per_token("fp8")


def test_a_replay_says_that_its_cache_has_8_bits(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,20,4\n0.01,9,3\n")
    config = tmp_path / "run.toml"
    config.write_text("[kv]\nnum_blocks = 50\n")
    command = ["replay", str(trace), "--config", str(config), "--device", "cpu", "--clock", "cpu"]
    for extra, kept in ((["--kv-dtype", "fp8"], "fp8"), ([], None)):
        out = tmp_path / f"out-{kept}"
        assert main([*command, *extra, "--out", str(out)]) == 0
        assert Result.load(out).meta["kv_dtype"] == kept


def test_a_twin_of_32_bits_does_not_go_on_in_the_folder_of_8(small, torch_backend, tmp_path):
    limits = GridLimits(4, 64, 128, 64)
    machines = [
        Machine(replace(small, kv_dtype=dtype), torch_backend, limits, "cpu")
        for dtype in (FP8, torch.float32)
    ]
    for number, (first, then) in enumerate([machines, machines[::-1]]):
        claim(tmp_path / str(number), first.settings)
        with pytest.raises(ValueError, match="kv_dtype"):
            claim(tmp_path / str(number), then.settings)


def test_a_configuration_of_8_bits_is_not_passed_over(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text('gpu.kv_dtype = "fp8"\nkv.num_blocks = 50\n')
    command = ["replay", "azure-conv", "--config", str(config), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "give --kv-dtype fp8 for it, or leave it out" in capsys.readouterr().err


def test_a_gpu_without_such_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"compute capability 8\.9 or more.*this one has 8\.0"):
        settle_place("tiny-llama", "triton", "cuda", None, "fp8")
