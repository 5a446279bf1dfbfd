"""Logs of vLLM's engine by iteration, as a result; format in tests/measured/vllm_cpu."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.calibration.vllm_history import History
from busdoor.calibration.vllm_rows import read_iteration, read_requests
from busdoor.results.result import Result
from busdoor_workloads.reading.json_table import read_json

KEYS = {"config", "requests", "iterations"}


def read_vllm_log(path: str | Path, about: Mapping[str, Any] | None = None) -> Result:
    """Read a log of a real vLLM V1 engine; `about` adds gpu, model, dtype, engine to the meta.

    The log is JSON, gzipped or not: `config` (max_num_seqs, max_num_batched_tokens, block_size,
    num_blocks, max_model_len), `requests` ([arrival_s, input, output, first_token_s, finish_s]
    or, with an id of its own, [..., finish_s, id]) and `iterations` ([start_s, end_s,
    [[request, tokens], ...], [preempted, ...]] or, with a prefix cache, a fifth item {request:
    cached tokens} of those that enter), in seconds from the run's start. An iteration names a
    request by its id, else by its place in `requests`, as a number or a string.

    An iteration begins when the one before it ends, or when a request arrives at an idle engine;
    `device_s` is the engine's own time, and `host_s` what passed before it. Raises ValueError if
    the log does not hold together: the sentence names the iteration.
    """
    path = Path(path)
    return result_of_log(path.name, read_json(path), about)


def result_of_log(
    name: str, log: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> Result:
    """Make a result of a log's document; errors call it `name`. Else as `read_vllm_log`."""
    if missing := KEYS - set(log):
        raise ValueError(
            f"{name} has no {', '.join(sorted(missing))}; it is no log of vLLM's engine"
        )
    requests, places = read_requests(name, log["requests"])
    meta = _meta(name, log, about or {})
    history = History(name, requests, meta["block_size"])
    for number, row in enumerate(log["iterations"]):
        history.iterate(number, *read_iteration(row, places, f"{name} iteration {number}"))
    return Result(history.requests(), history.iterations(), history.stays(), meta)


_SETTINGS = ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size", "max_model_len")


def _meta(name: str, log: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    config = log["config"]
    for key in _SETTINGS:
        value = config.get(key) if isinstance(config, Mapping) else None
        if type(value) is not int or value < 1:
            raise ValueError(
                f"{name}: config.{key} is {value}; it must be a whole number of 1 or more"
            )
    scheduler = {key: config[key] for key in ("max_num_seqs", "max_num_batched_tokens")}
    scheduler |= {key: True for key in ("prefix_caching",) if config.get(key) is True}
    arrivals = [row[0] for row in log["requests"]]
    return {
        "policy": "vllm",
        "streams": True,
        "policy_config": {"name": "vllm", **scheduler},
        "num_slots": config["max_num_seqs"],
        "num_blocks": config["num_blocks"],
        "block_size": config["block_size"],
        "max_model_len": config["max_model_len"],
        "step_time": {"name": "measured", "clock": "wall"},
        "lookahead": 0,
        "engine": "vllm",
        "trace": name.split(".")[0],
        "num_requests": len(arrivals),
        "trace_duration_s": max(arrivals, default=0.0),
        **about,
    }
