"""The command `busdoor replay`, on a CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from busdoor.cli import main
from busdoor.cli.file_flags import FileFlags
from busdoor_gpu.cli.flags import MachineFlags
from busdoor_gpu.cli.replay import replay

CASES = Path(__file__).parents[2] / "cases" / "robustness" / "09_memory"

CONFIG = """
[kv]
num_blocks = 100
[[policy]]
name = "vllm"
max_num_seqs = 4
max_num_batched_tokens = 64
[[policy]]
name = "static"
batch_size = 2
"""


@pytest.fixture
def files(tmp_path):
    trace, config = tmp_path / "trace.jsonl", tmp_path / "run.toml"
    rows = [
        {"arrival_s": i / 10, "input_tokens": 10 + i, "output_tokens": 3 * i + 2} for i in range(4)
    ]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.write_text(CONFIG)
    return str(trace), config, tmp_path / "out"


def command(files, **flags):
    trace, config, out = files
    machine = {"backend": "torch", "model": "tiny-llama"}
    machine |= {
        flag: flags.pop(flag) for flag in [*flags] if flag in MachineFlags.__dataclass_fields__
    }
    return replay(trace, config=config, out=out, machine=MachineFlags(**machine), **flags)


def meta_of(folder):
    return json.loads((folder / "meta.json").read_text())


def test_it_replays_every_policy_of_the_configuration(files, capsys):
    assert command(files, clock="cpu") == 0
    assert capsys.readouterr().out.count("4 of 4") == 2
    for name in ("vllm", "static"):
        meta = meta_of(files[2] / name)
        assert (meta["policy"], meta["model"], meta["lookahead"]) == (name, "tiny-llama", 1)
        assert meta["config"]["gpu"]["model"]["hidden_size"] == 64
        assert meta["cpu_s"] > 0 and meta["wall_s"] > 0
    assert meta["policy_config"]["decode_reads"] == "own", "paged kernels read no padding"


@pytest.mark.parametrize(
    ("flags", "arrivals"),
    [
        ({"time_scale": 0.5}, lambda requests: [0.0, 0.05, 0.1, 0.15]),
        ({"rate": float("inf")}, lambda requests: [0.0] * 4),
        ({"concurrency": 1}, lambda requests: [0.0, *requests["finish_s"][:3]]),
    ],
)
def test_arrivals_by_the_clock_all_at_once_or_in_a_closed_loop(files, flags, arrivals):
    from busdoor import Result

    command(files, policy=["vllm,max_num_seqs=4,max_num_batched_tokens=64"], clock="cpu", **flags)
    requests = Result.load(files[2]).requests
    assert requests["arrival_s"].tolist() == pytest.approx(arrivals(requests), abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"backend": "triton"}, "there is no GPU for device cuda here; use --backend torch"),
        ({"model": "tiny-lama"}, "'tiny-lama' is not a model of the catalogue"),
        ({"concurrency": 0}, "--concurrency is 0; it must be more than 0"),
        (
            {"backend": "triton", "device": "cpu"},
            "--backend triton runs on a GPU, and --device is cpu",
        ),
        ({"device": "tpu"}, "--device 'tpu': there is no such device; use cuda, cuda:1 or cpu"),
        ({"device": "meta"}, "--device 'meta': there is no such device"),
        ({"device": ""}, "--device '': there is no such device"),
        ({"model": ""}, "--model is empty; give a model's name"),
        ({"time_scale": float("inf")}, "--time-scale is inf; it must be more than 0, and finite"),
        ({"model": "./no/such"}, "--model ./no/such: there is no such folder"),
        (
            {"model": "opt-13b"},
            "opt-13b has mlp = 'plain', bias = 'all'.*shaped as Llama, Mistral, Qwen2 or Qwen3",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(files, flags, sentence):
    torch = pytest.importorskip("torch")
    if "backend" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=sentence):
        command(files, **flags)


def test_memory_has_to_be_given_where_it_cannot_be_measured(files):
    files[1].write_text("lookahead = 0\n")
    with pytest.raises(ValueError, match=r"measured on a GPU only; give \[kv\] num_blocks"):
        command(files)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def small_machine(monkeypatch):
    from busdoor_workloads import memory_check

    monkeypatch.setattr(memory_check, "available_bytes", lambda: 8 * 2**30)


def never(*args, **options):
    raise AssertionError("nothing may be loaded or allocated")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["replay", "two.csv", "--config", "rcb.toml"],
            r"tiny-llama .*KV 3,8\d\d.\d GiB for 500,000,000 blocks",
        ),
        (
            ["replay", "two.csv", "--config", "rcs.toml"],
            r"tiny-llama .* for 50,000,000 slots\) needs",
        ),
        (["profile", "--num-blocks", "500000000"], r"KV 3,8\d\d.\d GiB for 500,000,000 blocks"),
        (["profile", "--max-num-seqs", "100000000"], r"for 100,000,000 slots\) needs"),
        (
            ["profile", "--model", "llama-3.1-8b", "--device", "cpu"],
            r"llama-3.1-8b .*\(weights 30.0 GiB, KV 2.0 GiB",
        ),
        (["twin", "--num-blocks", "500000000"], r"for 500,000,000 blocks"),
        (["twin", "--model", "llama-3.1-8b"], r"llama-3.1-8b .*\(weights 30.0 GiB"),
        (
            ["replay", "two.csv", "--config", "rcb.toml", "--model", "llama-3.1-8b"],
            r"weights 30.0 GiB",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_allocated(
    arguments, sentence, no_gpu, small_machine, tmp_path, monkeypatch, capsys
):
    for file in CASES.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("busdoor_gpu.engine.place.load_model", never)
    assert main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(sentence, last) and last.endswith("the machine has 8 GiB free; ask for less")
    assert not list(tmp_path.glob("busdoor-*")), "no folder for what was refused"


def test_the_python_api_checks_too(small_machine, policies, models, torch_backend):
    import torch

    from busdoor.kv.paged import PagedKV
    from busdoor.policies.vllm import VllmPolicy
    from busdoor_gpu.engine.engine import Engine
    from busdoor_gpu.engine.model import load_model

    with pytest.raises(ValueError, match=r"llama-3.1-8b on the CPU \(weights alone\) needs 30 GiB"):
        load_model("llama-3.1-8b", "cpu", torch.float32)
    policy = VllmPolicy(
        PagedKV(10**8, 16), max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64
    )
    with pytest.raises(ValueError, match="for 100,000,000 blocks"):
        Engine(models["tiny-llama"], policy, torch_backend, row_tokens=64)


@pytest.mark.parametrize("command", ["replay", "profile", "twin"])
def test_without_a_gpu_the_cpu_and_a_toy_model_are_chosen_and_said(
    command, no_gpu, tmp_path, monkeypatch, capsys
):
    loaded = []

    def load(config, device, dtype, seed, kv_dtype):
        loaded.append((config.shape.name, device.type, str(dtype)))
        raise ValueError("enough")

    monkeypatch.setattr("busdoor_gpu.engine.place.load_model", load)
    config = CASES / "two.csv", "--config", tmp_path / "run.toml"
    (tmp_path / "run.toml").write_text(CONFIG)
    assert (
        main(
            [
                command,
                *(map(str, config) if command == "replay" else ()),
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 2
    )
    assert loaded == [("tiny-llama", "cpu", "torch.float32")]
    choice = (
        "there is no GPU here, so this runs on the CPU with --backend torch and the toy "
        "model tiny-llama"
    )
    assert choice in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_is_not_negative(seed, no_gpu, tmp_path, capsys):
    assert main(["profile", "--seed", seed, "--budget", "1s", "--out", str(tmp_path / "o")]) == 2
    assert f"--seed is {seed}; it must be from 0" in capsys.readouterr().err


def test_columns_are_named_by_flags(files, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("when,asked,answer\n0,5,3\n0.1,6,3\n")
    reading = FileFlags(
        columns={"arrival_s": "when", "input_tokens": "asked", "output_tokens": "answer"}
    )
    policy = ["vllm,max_num_seqs=4,max_num_batched_tokens=64"]
    assert command((str(other), *files[1:]), policy=policy, clock="cpu", reading=reading) == 0
    assert meta_of(files[2])["num_requests"] == 2


def test_the_configurations_model_is_not_replaced_by_the_toy(no_gpu, files, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "busdoor_gpu.engine.place.load_model",
        lambda config, *args: loaded.append(config.shape.name) or 1 / 0,
    )
    for name in ("qwen3-0.6b", "tiny-qwen3"):
        files[1].write_text(f'{CONFIG}[gpu]\nmodel = "{name}"\n')
        with pytest.raises(ZeroDivisionError):
            command(files, backend=None, model=None)
    assert loaded == ["qwen3-0.6b", "tiny-qwen3"]


def test_several_servers_are_refused(files):
    files[1].write_text(CONFIG + "[cluster]\nreplicas = 2\n")
    with pytest.raises(ValueError, match=r"\[cluster\]: a replay runs on one server"):
        command(files)


def test_a_replay_that_breaks_off_saves_what_it_measured(files, monkeypatch):
    from busdoor_gpu.engine.engine import Engine

    def die(self, step):
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr(Engine, "_run", die)
    with pytest.raises(
        ValueError, match=r"the GPU failed .CUDA error: device lost.* so far is in .*out"
    ):
        command(files, clock="cpu")
    assert "GPU failed" in meta_of(files[2] / "vllm")["error"]


def test_an_interrupted_replay_keeps_the_policies_that_are_done(files, monkeypatch, capsys):
    import busdoor_gpu.replay.replay as engine

    def interrupted(trace, policy, *args, meta, **options):
        if meta["policy"] == "static":
            raise KeyboardInterrupt
        return replayed(trace, policy, *args, meta=meta, **options)

    replayed = engine.replay
    monkeypatch.setattr(engine, "replay", interrupted)
    trace, config, out = files
    flags = [
        "--config",
        str(config),
        "--backend",
        "torch",
        "--model",
        "tiny-llama",
        "--clock",
        "cpu",
    ]
    assert main(["replay", trace, *flags, "--out", str(out)]) == 130
    assert json.loads((out / "replay.json").read_text())["complete"] is False
    assert meta_of(out / "vllm")["complete"] is True and not (out / "static").exists()
