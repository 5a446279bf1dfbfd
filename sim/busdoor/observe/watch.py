"""What a server tells about itself: its models, its memory, and its state once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from busdoor.observe.prometheus import Sample, samples

EVERY_S = 1.0
_QUICK = aiohttp.ClientTimeout(total=10.0)  # an idle server answers these at once
# Our column, and the name in the pages of vLLM, SGLang and TGI (their documentation of metrics).
STATE = {
    "num_running": (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "tgi_batch_current_size",
    ),
    "num_waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "generation_tokens": ("vllm:generation_tokens_total", "sglang:generation_tokens_total"),
}


class ServerError(ValueError):
    """What stands at an address is no server that can be observed; the sentence says why."""


async def models_of(session: aiohttp.ClientSession, url: str) -> dict[str, Mapping[str, Any]]:
    """Return what a server says of each model that it serves.

    ServerError if nothing answers there, or something else does.
    """
    page = f"{url}/v1/models"
    try:
        async with session.get(page, timeout=_QUICK) as response:
            if response.status in (401, 403):
                raise ServerError(
                    f"{page} answers {response.status}: it wants a key; set it in OPENAI_API_KEY"
                )
            if response.status != 200:
                raise ServerError(
                    f"{page} answers {response.status}; give the address before /v1, as in "
                    f"http://127.0.0.1:8000"
                )
            document = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ServerError(f"nothing answers at {page}: {error or 'no answer in time'}") from None
    except ValueError as error:
        if isinstance(error, ServerError):
            raise
        raise ServerError(f"{page} is no page of an OpenAI-compatible server") from None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or not data:
        raise ServerError(f"{page} names no model; is an OpenAI-compatible server there?")
    return {str(one["id"]): one for one in data if isinstance(one, dict) and "id" in one}


async def metrics_page(session: aiohttp.ClientSession, url: str) -> list[Sample]:
    """Return a server's page of metrics; empty where it has none."""
    try:
        async with session.get(f"{url}/metrics", timeout=_QUICK) as response:
            return list(samples(await response.text())) if response.status == 200 else []
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return []


async def version_of(session: aiohttp.ClientSession, url: str) -> str:
    """Return a server's version; empty where it does not say."""
    try:
        async with session.get(f"{url}/version", timeout=_QUICK) as response:
            document = await response.json(content_type=None) if response.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return ""
    return str(document.get("version", "")) if isinstance(document, dict) else ""


def server_table(page: list[Sample], model: Mapping[str, Any]) -> dict[str, int]:
    """Return what a server shows of its memory and limits, under the names of `policy_of`.

    >>> page = [Sample("vllm:cache_config_info", {"block_size": "32", "num_gpu_blocks": "100"}, 1)]
    >>> server_table(page, {"max_model_len": 2048})
    {'block_size': 32, 'num_blocks': 99, 'max_model_len': 2048}
    """
    shown: dict[str, Any] = {}
    for sample in page:
        if sample.name.endswith("cache_config_info"):
            labels = sample.labels
            shown["block_size"] = labels.get("block_size")
            shown["num_blocks"] = _num_blocks(labels)
    shown["max_model_len"] = model.get("max_model_len")
    return {key: number for key, value in shown.items() if (number := _whole(value))}


def _num_blocks(labels: Mapping[str, str]) -> int:
    """Blocks that requests can have: vLLM keeps one, the null block, for itself."""
    tokens, size = _whole(labels.get("kv_cache_size_tokens")), _whole(labels.get("block_size"))
    blocks = tokens // size if tokens and size else _whole(labels.get("num_gpu_blocks"))
    return max(0, blocks - 1)


def _whole(value: Any) -> int:
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return 0


def state(page: list[Sample]) -> dict[str, float]:
    """Return the numbers of `STATE` that a page has, summed over its engines.

    >>> state([Sample("vllm:num_requests_running", {"engine": "0"}, 3.0),
    ...        Sample("vllm:num_requests_running", {"engine": "1"}, 2.0)])
    {'num_running': 5.0}
    """
    found = {}
    for column, names in STATE.items():
        for name in names:
            values = [sample.value for sample in page if sample.name == name]
            if values:
                found[column] = sum(values)
                break
    return found


async def watch(
    session: aiohttp.ClientSession, url: str, start_s: float, rows: list[dict[str, float]]
) -> None:
    """Append a row of the server's state every second, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        found = state(await metrics_page(session, url))
        if not found:
            return  # it shows nothing, and asking again would only load it
        rows.append({"time_s": loop.time() - start_s, **found})
        await asyncio.sleep(EVERY_S)
