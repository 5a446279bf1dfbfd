"""Prometheus text: a live server's state in vLLM's names, and any server's page as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from busdoor.observe.live import LiveServer

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


class Sample(NamedTuple):
    """One line of a page of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    r"""Read a page of metrics; lines that are none are left out.

    >>> page = '# TYPE up gauge\nup{job="a b"} 1\nvllm:num_requests_running 3.0\n'
    >>> [(one.name, dict(one.labels), one.value) for one in samples(page)]
    [('up', {'job': 'a b'}, 1.0), ('vllm:num_requests_running', {}, 3.0)]
    """
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match is None:
            continue
        name, labels, value = match.groups()
        try:
            yield Sample(name, _labels(labels or ""), float(value))
        except ValueError:
            continue


def _labels(text: str) -> dict[str, str]:
    return {
        name: re.sub(r"\\[\\\"n]", lambda found: _ESCAPES[found.group()], value)
        for name, value in _LABEL.findall(text)
    }


def exposition(server: LiveServer, model: str) -> str:
    """Return the page of a live server, in the names that vLLM 0.32 uses."""
    policy, counts = server.policy, server.counts
    kv = getattr(policy, "kv", None)
    num_blocks = int(getattr(kv, "num_blocks", 0) or 0)
    block_size = int(getattr(kv, "block_size", 0) or 0)
    used = policy.kv_blocks(1) / num_blocks if num_blocks else 0.0
    shown_blocks = num_blocks + 1 if num_blocks else 0  # vLLM counts its null block too
    config = {
        "block_size": block_size,
        "num_gpu_blocks": shown_blocks,
        "kv_cache_size_tokens": shown_blocks * block_size,
        "enable_prefix_caching": bool(getattr(policy, "prefix_caching", False)),
    }
    gauges = {
        "num_requests_running": policy.num_running,
        "num_requests_waiting": policy.num_waiting,
        "kv_cache_usage_perc": used,
    }
    counters = {
        "num_preemptions": counts.preemptions,
        "prefix_cache_queries": counts.prefix_queries,
        "prefix_cache_hits": counts.prefix_hits,
        "prompt_tokens": counts.prompt_tokens,
        "generation_tokens": counts.generation_tokens,
    }
    name = {"model_name": model}
    lines = [*_metric("cache_config_info", "gauge", config, 1)]
    for key, value in gauges.items():
        lines += _metric(key, "gauge", name, value)
    for key, value in counters.items():
        lines += _metric(f"{key}_total", "counter", name, value)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, labels: Mapping[str, Any], value: float) -> list[str]:
    text = ",".join(f'{key}="{own}"' for key, own in labels.items())
    return [f"# TYPE vllm:{name} {kind}", f"vllm:{name}{{{text}}} {value}"]
