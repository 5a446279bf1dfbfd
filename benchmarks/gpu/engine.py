"""Engine benchmark: decode steps, prefill, a published workload, continuous and static.

On a CPU a tiny model runs toy sizes: that shows that the benchmark works, not how fast the engine
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from random import Random

import numpy as np
import torch
from benchmarks.gpu.hf import time_transformers
from benchmarks.gpu.rows import EngineRow
from benchmarks.gpu.timing import Deadline

from busdoor.kv.config import KVConfig
from busdoor.policies import POLICIES
from busdoor.results.result import Result
from busdoor_gpu.engine.backend import Backend, load_backend
from busdoor_gpu.engine.kv_memory import measure_num_blocks
from busdoor_gpu.engine.model import Model, load_model
from busdoor_gpu.replay.replay import replay
from busdoor_workloads import Trace

_STEPS = 64  # decode steps of a median
_BUDGET, _MAX_NUM_SEQS = (
    16384,
    512,
)  # tokens and requests of an iteration: nano-vllm's defaults (its config.py)
_BLOCK_SIZE = 16
_BATCH = 64  # rows of transformers' static batches, which fit beside its copies of the cache


@dataclass(frozen=True)
class Bed:
    """A loaded model, and its KV memory."""

    model: Model
    backend: Backend
    num_blocks: int

    @classmethod
    def of(cls, name: str, device: torch.device, max_model_len: int) -> Bed:
        """Load a model with random weights and measure the memory."""
        on_gpu = device.type == "cuda"
        model, backend = load_model(name, device), load_backend("triton" if on_gpu else "torch")
        return cls(
            model,
            backend,
            measure_num_blocks(model, backend, _BLOCK_SIZE, max_model_len) if on_gpu else 512,
        )

    def serve(self, trace: Trace, policy: str, **fields: object) -> Result:
        """Replay a trace as fast as possible, the host one step ahead."""
        longest = int((trace.input_tokens + trace.output_tokens).max())
        # Every policy leaves the blocks that contiguous ranges need beside their tokens, so that
        # all have equal memory.
        kv = KVConfig(
            num_blocks=self.num_blocks - min(_MAX_NUM_SEQS, self.num_blocks // 4),
            max_model_len=longest,
        )
        built = POLICIES[policy](**fields).build(kv, trace)
        clock = "wall" if self.model.device.type == "cuda" else "cpu"
        return replay(trace, built, self.model, self.backend, clock=clock)  # type: ignore[arg-type]


def nano_vllm_workload(num_requests: int = 256, least: int = 100, most: int = 1024) -> Trace:
    """Return the requests of nano-vllm's bench.py, all at once, lengths drawn as there.

    Examples
    --------
    >>> trace = nano_vllm_workload()
    >>> trace.input_tokens.sum().item(), trace.output_tokens.sum().item()     # as it publishes
    (142827, 133966)
    """
    random = Random(0)
    prompts = [
        [random.randint(0, 10000) for _ in range(random.randint(least, most))]
        for _ in range(num_requests)
    ]
    answers = [random.randint(least, most) for _ in range(num_requests)]
    return _burst([len(prompt) for prompt in prompts], answers, "nano-vllm bench.py")


def _burst(inputs: list[int], outputs: list[int], name: str) -> Trace:
    return Trace(
        arrival_s=np.zeros(len(inputs)), input_tokens=inputs, output_tokens=outputs, name=name
    )  # type: ignore[arg-type]


def time_decode(bed: Bed, batch: int, context: int, must: str = "") -> EngineRow:
    """Time the steps of `batch` decodes, whose contexts grow from `context`."""
    trace = _burst([context] * batch, [_STEPS + 2] * batch, "decode")
    result = bed.serve(
        trace, "vllm", max_num_seqs=batch, max_num_batched_tokens=max(_BUDGET, batch)
    )
    steps = result.iterations.query(f"num_prefill_tokens == 0 and num_decode_tokens == {batch}")
    return _row(
        bed, f"decode B={batch} ctx={context}", "vllm", result, steps, batch * len(steps), must
    )


def time_prefill(bed: Bed, num_tokens: int, prompt: int, must: str = "") -> EngineRow:
    """Time iterations of `num_tokens` prompt tokens."""
    count = 4 * num_tokens // prompt
    result = bed.serve(
        _burst([prompt] * count, [1] * count, "prefill"),
        "vllm",
        max_num_seqs=count,
        max_num_batched_tokens=num_tokens,
    )
    steps = result.iterations.iloc[1:]  # the first compiles
    what = f"prefill {num_tokens} tokens, prompts of {prompt}"
    return _row(bed, what, "vllm", result, steps, int(steps["num_prefill_tokens"].sum()), must)


def time_workload(bed: Bed, trace: Trace, must: str = "") -> Iterator[EngineRow]:
    """Serve continuously, then static: as long as each batch's longest, as the workload's."""
    limits = {"max_num_seqs": _MAX_NUM_SEQS, "max_num_batched_tokens": _BUDGET}
    for policy, label, fields, target in (
        ("vllm", "vllm", limits, must),
        ("static", "static, batch's longest", {}, ""),
        ("static", "static, dataset's longest", {"pad_to": "dataset"}, ""),
    ):
        result = bed.serve(trace, policy, **fields)
        tokens = int(trace.output_tokens.sum())
        yield _row(bed, trace.name, label, result, result.iterations, tokens, target)


def _row(
    bed: Bed, what: str, policy: str, result: Result, steps: object, tokens: int, must: str
) -> EngineRow:
    durations, device = (np.asarray(steps[key]) for key in ("duration_s", "device_s"))  # type: ignore[index]
    summary = result.summary
    return EngineRow(
        model=bed.model.config.shape.name,
        what=what,
        policy=policy,
        step_ms=1e3 * float(np.median(durations)),
        gap_us=1e6 * float(np.median(durations - device)),
        tokens_per_s=tokens / float(durations.sum()),
        busy=float(device.sum() / durations.sum()),
        padding=float(summary["padding_share"]),
        bubbles=float(summary["bubble_share"]),
        must=must,
    )


def run(
    device: torch.device, quick: bool = False, deadline: Deadline | None = None
) -> Iterator[EngineRow]:
    """Measure E1 to E8 of references/gpu-anchors 7, and transformers; toy sizes on a CPU.

    Parameters
    ----------
    device : torch.device
        The device.
    quick : bool
        Whether to measure fewer models and requests.
    deadline : Deadline, optional
        After it no row starts.

    Examples
    --------
    >>> next(run(torch.device("cpu"))).what
    'decode B=1 ctx=16'
    """
    deadline = deadline or Deadline()
    if device.type != "cuda":
        return deadline.cut(_toys(device, deadline))
    return deadline.cut(
        chain(_large(device, quick), _workloads(device, quick), _theirs(device, quick, deadline))
    )


def _toys(device: torch.device, deadline: Deadline) -> Iterator[EngineRow]:
    bed, trace = Bed.of("tiny-llama", device, 64), nano_vllm_workload(8, 2, 12)
    yield time_decode(bed, 1, 16)
    yield time_decode(bed, 4, 16)
    yield time_prefill(bed, 64, 32)
    yield from time_workload(bed, trace)
    yield from time_transformers("tiny-llama", trace, device, 4, deadline)


def _theirs(device: torch.device, quick: bool, deadline: Deadline) -> Iterator[EngineRow]:
    """Time transformers on the smallest model; the quick form takes a part, as it is slow."""
    whole = nano_vllm_workload()
    trace = (
        replace(whole.select(np.arange(_BATCH)), name=f"nano-vllm bench.py, first {_BATCH}")
        if quick
        else whole
    )
    if quick:  # our engine on the same part, for comparison
        yield from time_workload(Bed.of("qwen3-0.6b", device, 2048), trace)
        torch.cuda.empty_cache()
    yield from time_transformers("qwen3-0.6b", trace, device, _BATCH, deadline)


def _large(device: torch.device, quick: bool) -> Iterator[EngineRow]:
    bed = Bed.of("llama-3.1-8b", device, 8192)
    yield time_decode(bed, 1, 1024, "6.9 ms")
    yield time_decode(bed, 64, 1024, "10.3 ms")
    yield time_decode(bed, 256, 1024, "22 ms")
    yield time_prefill(bed, 8192, 4096, "33,000 tokens/s")
    if not quick:
        yield from time_workload(bed, nano_vllm_workload(), "8,000 tokens/s")


def _workloads(device: torch.device, quick: bool) -> Iterator[EngineRow]:
    for name, must in (("qwen3-0.6b", "18,000 tokens/s"), ("qwen3-4b", "10,400 tokens/s")):
        torch.cuda.empty_cache()
        if name == "qwen3-0.6b" or not quick:
            yield from time_workload(Bed.of(name, device, 2048), nano_vllm_workload(), must)
