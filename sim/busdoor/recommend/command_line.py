"""How to start the recommended servers: the command line of their engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from busdoor.catalog.tables import read_tables
from busdoor.recommend.space import Candidate

# By engine: the command, and the flag of each setting. `{}` stands for its value; of a pair the
# first is for true. vLLM 0.32 (vllm serve --help), TensorRT-LLM 1.0 (trtllm-serve --help), SGLang
# 0.5 (launch_server --help), TGI 3 (text-generation-launcher --help).
_COMMANDS = {
    "vllm": "vllm serve",
    "trtllm": "trtllm-serve",
    "sglang": "python -m sglang.launch_server --model-path",
    "tgi": "text-generation-launcher --model-id",
}
_FLAGS: dict[str, dict[str, str | tuple[str, str]]] = {
    "vllm": {
        "tp": "--tensor-parallel-size {}",
        "weight_dtype": "--quantization {}",
        "max_model_len": "--max-model-len {}",
        "max_num_seqs": "--max-num-seqs {}",
        "max_num_batched_tokens": "--max-num-batched-tokens {}",
        "chunked_prefill": ("--enable-chunked-prefill", "--no-enable-chunked-prefill"),
        "prefix_caching": ("--enable-prefix-caching", "--no-enable-prefix-caching"),
    },
    "trtllm": {
        "tp": "--tp_size {}",
        "max_model_len": "--max_seq_len {}",
        "max_num_seqs": "--max_batch_size {}",
        "max_num_batched_tokens": "--max_num_tokens {}",
    },
    "sglang": {
        "tp": "--tp-size {}",
        "max_model_len": "--context-length {}",
        "max_num_seqs": "--max-running-requests {}",
        "max_num_batched_tokens": "--chunked-prefill-size {}",
        "prefix_caching": ("", "--disable-radix-cache"),
    },
    "tgi": {"tp": "--num-shard {}", "max_model_len": "--max-total-tokens {}"},
}
_REPOSITORY = re.compile(r"(?:https://huggingface\.co/)?([\w.-]+/[\w.-]+)\b")


def command_line(candidate: Candidate) -> str:
    """Return the command that starts one of the servers; empty for an engine without a known one.

    Only what differs from the engine's own defaults is set, but for limits: these are said, as the
    engine chooses them by the GPU.
    """
    config = candidate.server.config
    engine = (config.engine.name if config.engine else "vllm").split("-")[0]
    if engine not in _COMMANDS:
        return ""
    return " ".join([_COMMANDS[engine], _model(config.gpu.model.name), *_set(candidate, engine)])


def _set(candidate: Candidate, engine: str) -> list[str]:
    config, policy = candidate.server.config, candidate.server.config.policies[0]
    values: dict[str, Any] = {"tp": config.gpu.tp} if config.gpu.tp > 1 else {}
    if config.gpu.weight_dtype == "fp8" and config.gpu.model.weight_dtype != "fp8":
        values["weight_dtype"] = "fp8"
    values["max_model_len"] = config.kv.max_model_len
    for name in ("max_num_seqs", "max_num_batched_tokens", "chunked_prefill", "prefix_caching"):
        if name in policy.field_names:
            values[name] = dict(candidate.setup.fields).get(name, getattr(policy.config, name))
    return [text for name, value in values.items() if (text := _flag(_FLAGS[engine], name, value))]


def _flag(flags: Mapping[str, str | tuple[str, str]], name: str, value: Any) -> str:
    flag = flags.get(name)
    if isinstance(flag, tuple):
        return flag[0] if value else flag[1]
    return flag.format(value) if flag and value is not None else ""


def _model(name: str) -> str:
    """Return the model's repository, as its source in the catalogue names it; else its name."""
    found = _REPOSITORY.match(read_tables("models.toml").get(name, {}).get("source", ""))
    return found[1] if found else name
