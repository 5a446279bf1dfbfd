"""Passes of bounded size, and the device's errors as sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from busdoor_gpu.engine.slots import EngineError, Step

Out = TypeVar("Out")

# Most tokens of one forward pass: a larger step runs in several passes, so that activations stay
# bounded. It is vLLM's largest default budget (16384 offline on an H100, see
# `busdoor.catalog.memory`).
PASS_TOKENS = 16384


class Running:
    """A step that was submitted and has not finished."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None


def new_event() -> torch.cuda.Event:
    """Return an event of the device that records its time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU is idle; a CPU, which computes in the caller's thread, always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def passes_of(num_tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Split rows into passes of at most `PASS_TOKENS` tokens; a longer row has a pass of its own.

    >>> passes_of([10000, 6000, 7000, 20000, 1])
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    cuts, total = [0], 0
    for row, tokens in enumerate(num_tokens):
        if total and total + tokens > PASS_TOKENS:
            cuts.append(row)
            total = 0
        total += tokens
    return list(zip(cuts, [*cuts[1:], len(num_tokens)], strict=True))


def guarded(act: Callable[..., Out], *args: Any) -> Out:
    """Call `act`; raise EngineError, one sentence, if the device is full or has failed."""
    try:
        return act(*args)
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the GPU's memory is full ({str(error).split('. ')[0]}); give [kv] fewer num_blocks, "
            "or lower gpu_memory_utilization"
        ) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):
            raise EngineError(
                f"the machine's memory is full ({str(error).splitlines()[0]}); ask for less"
            ) from error
        if "CUDA" in str(error) or "HIP" in str(error):
            raise EngineError(
                f"the GPU failed ({str(error).splitlines()[0]}); restart the process"
            ) from error
        raise
