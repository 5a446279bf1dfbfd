"""The command `busdoor replay`, on a CPU."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from busdoor_gpu.cli import replay

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
    rows = [{"arrival_s": i / 10, "input_tokens": 10 + i, "output_tokens": 3 * i + 2} for i in range(4)]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.write_text(CONFIG)
    return str(trace), config, tmp_path / "out"


def command(files, **flags):
    trace, config, out = files
    return replay(trace, **{"config": config, "backend": "torch", "model": "tiny-llama", "out": out, **flags})


def meta_of(folder):
    return json.loads((folder / "meta.json").read_text())


def test_it_replays_every_policy_of_the_configuration(files, capsys):
    assert command(files, clock="cpu") == 0
    assert capsys.readouterr().out.count("4 of 4") == 2
    for name in ("vllm", "static"):
        meta = meta_of(files[2] / name)
        assert (meta["policy"], meta["model"], meta["lookahead"]) == (name, "tiny-llama", 1)
        assert meta["config"]["gpu"]["model"]["hidden_size"] == 64
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
    import pandas as pd

    command(files, policy=["vllm,max_num_seqs=4,max_num_batched_tokens=64"], clock="cpu", **flags)
    requests = pd.read_csv(files[2] / "requests.csv")
    assert requests["arrival_s"].tolist() == pytest.approx(arrivals(requests), abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"backend": "triton"}, "there is no GPU for device cuda here; use --backend torch"),
        ({"model": "tiny-lama"}, "'tiny-lama' is not a model of the catalogue"),
        ({"concurrency": 0}, "--concurrency is 0; it must be more than 0"),
        ({"model": "opt-13b"}, "opt-13b has mlp = 'plain', bias = 'all'.*shaped as Llama or Qwen3"),
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


def test_several_servers_are_refused(files):
    files[1].write_text(CONFIG + "[cluster]\nreplicas = 2\n")
    with pytest.raises(ValueError, match=r"\[cluster\]: a replay runs on one server"):
        command(files)


def test_a_replay_that_breaks_off_saves_what_it_measured(files, monkeypatch):
    from busdoor_gpu.engine import Engine

    def die(self, step):
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr(Engine, "_run", die)
    with pytest.raises(ValueError, match=r"the GPU failed .CUDA error: device lost.* so far is in .*vllm"):
        command(files, clock="cpu")
    assert "GPU failed" in meta_of(files[2] / "vllm")["error"]
