"""The engines of transformers on the same requests: static `generate`, `generate_batch`.

Answers have the trace's lengths. A static batch is padded on the left and runs until its longest
answer is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any

import numpy as np
import torch
from benchmarks.gpu.rows import EngineRow
from benchmarks.gpu.timing import Deadline

from busdoor.core.request import Request
from busdoor_gpu.engine.model_config import ModelConfig, find_model
from busdoor_gpu.engine.prompts import prompt_tokens
from busdoor_workloads import Trace

_STATIC, _CONTINUOUS = "transformers generate, static", "transformers generate_batch, paged|sdpa"
_SAME = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)
_TOY_CACHE = {
    "num_blocks": 16,
    "max_batch_tokens": 64,
}  # on a CPU, whose memory the default would fill


def time_transformers(
    name: str, trace: Trace, device: torch.device, batch_size: int, deadline: Deadline
) -> Iterator[EngineRow]:
    """Serve a burst of requests both ways; an engine that cannot run gets a row with the reason.

    Parameters
    ----------
    name : str
        Model of the catalogue or of `TINY`.
    trace : Trace
        Its requests are sent at once.
    device : torch.device
        The device.
    batch_size : int
        Size of the static batches.
    deadline : Deadline
        Both stop then, and keep what they have.
    """
    if find_spec("transformers") is None:
        yield from (
            EngineRow(name, trace.name, how, note="absent: no transformers")
            for how in (_STATIC, _CONTINUOUS)
        )
        return
    config = find_model(name)
    prompts = _prompts(config, trace)
    outputs = trace.output_tokens.tolist()
    for how, serve in ((_STATIC, _serve_static), (_CONTINUOUS, _serve_continuous)):
        if deadline.passed:
            return
        try:
            with _quiet():
                row = serve(_load(config, device, "sdpa"), prompts, outputs, batch_size, deadline)
            yield EngineRow(name, trace.name, how, **row)
        except Exception as error:  # of any kind: an error of transformers must not lose our rows
            line = (str(error).splitlines() or [""])[0]
            yield EngineRow(
                name, trace.name, how, note=f"failed: {type(error).__name__}: {line}"[:200]
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _prompts(config: ModelConfig, trace: Trace) -> list[list[int]]:
    vocab = config.shape.vocab_size
    rows = enumerate(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
    return [prompt_tokens(Request(i, 0.0, *sizes), 16, vocab).tolist() for i, sizes in rows]


def _load(config: ModelConfig, device: torch.device, attention: str) -> Any:
    """Return a model of the shape with random weights, in our engine's type on that device."""
    transformers: Any = import_module("transformers")
    family = "Qwen3" if config.shape.qk_norm else "Llama"
    shape = asdict(config.shape)
    theirs = getattr(transformers, f"{family}Config")(
        **{key: shape[key] for key in _SAME},
        attn_implementation=attention,
        eos_token_id=None,
        pad_token_id=0,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            return getattr(transformers, f"{family}ForCausalLM")(theirs).eval()
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logs of transformers, which concern its own future versions."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _timed(device: torch.device, act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start


def _serve_static(
    model: Any, prompts: list[list[int]], outputs: list[int], batch_size: int, deadline: Deadline
) -> dict[str, Any]:
    _generate(model, prompts[:batch_size], 2, deadline)  # warm
    passed_s, tokens, useful, computed, rows, steps = 0.0, 0, 0, 0, 0, 0
    for low in range(0, len(prompts), batch_size):
        if deadline.passed:
            break
        mine, wanted = prompts[low : low + batch_size], outputs[low : low + batch_size]
        made, seconds = _timed(model.device, partial(_generate, model, mine, max(wanted), deadline))
        passed_s += seconds
        steps += made
        rows += made * len(mine)
        tokens += sum(min(made, n) for n in wanted)
        computed += len(mine) * (max(map(len, mine)) + made - 1)
        useful += sum(len(p) + min(made, n) - 1 for p, n in zip(mine, wanted, strict=True))
    whole = tokens == sum(outputs)
    return {
        "step_ms": 1e3 * passed_s / max(steps, 1),
        "tokens_per_s": tokens / passed_s,
        "padding": 1 - useful / computed,
        "bubbles": 1 - tokens / rows,
        "note": "" if whole else "cut off by the deadline",
    }


@torch.inference_mode()
def _generate(model: Any, prompts: list[list[int]], new_tokens: int, deadline: Deadline) -> int:
    """Generate for one left-padded batch; return the number of tokens of each row."""
    transformers: Any = import_module("transformers")
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    limit = {"max_time": deadline.left_s} if isfinite(deadline.left_s) else {}
    how = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0, **limit
    )
    return (
        int(model.generate(input_ids=ids, attention_mask=mask, generation_config=how).shape[1])
        - width
    )


def _serve_continuous(
    model: Any, prompts: list[list[int]], outputs: list[int], batch_size: int, deadline: Deadline
) -> dict[str, Any]:
    transformers: Any = import_module("transformers")
    model.set_attn_implementation("paged|sdpa")
    memory = transformers.ContinuousBatchingConfig(
        **({} if model.device.type == "cuda" else _TOY_CACHE)
    )
    # No token has the id -1, so that no request stops early.
    how = transformers.GenerationConfig(
        max_new_tokens=max(outputs), do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    with model.continuous_batching_context_manager(
        generation_config=how, continuous_batching_config=memory, block=True, timeout=5
    ) as manager:
        _collect(manager, prompts[:1], [2], deadline, "warm")
        tokens, passed_s = _timed(
            model.device, lambda: _collect(manager, prompts, outputs, deadline, "row")
        )
    note = (
        ""
        if tokens == sum(outputs)
        else f"{tokens} of {sum(outputs)} tokens: stopped by the deadline or an error"
    )
    return {"tokens_per_s": tokens / passed_s, "note": note}


def _collect(
    manager: Any, prompts: list[list[int]], outputs: list[int], deadline: Deadline, kind: str
) -> int:
    """Send all requests; return the number of tokens of those that finish in time."""
    for i, (prompt, new_tokens) in enumerate(zip(prompts, outputs, strict=True)):
        manager.add_request(prompt, request_id=f"{kind} {i}", max_new_tokens=new_tokens)
    lengths: list[int] = []
    while len(lengths) < len(prompts) and manager.is_running() and not deadline.passed:
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            lengths.append(len(result.generated_tokens))
    return int(np.sum(lengths))
