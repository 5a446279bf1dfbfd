"""Time the host's part of a step without a GPU: Triton compiles for an H100, and its driver launches nothing.

What is timed is Python and PyTorch's dispatcher: the policy, packing, the one copy, and either the
replay of a CUDA graph or a launch per kernel. What a real driver adds is not in it (per launch some
5 to 60 us, by the machine; a graph has one launch), nor are the two events of a step. Linears are
replaced by tensors that are kept, so that a CPU's matrix products are not in it either. Target: at
most 600 us for a mixed step of the 8B shape through a graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.gpu.no_driver import NoDriver

import busdoor_gpu.engine.engine
import busdoor_gpu.engine.launcher
import busdoor_gpu.engine.model
from busdoor.catalog import ModelShape
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor_gpu.engine.backend import load_backend
from busdoor_gpu.engine.engine import Engine
from busdoor_gpu.engine.graphs import Key, StepGraphs
from busdoor_gpu.engine.model import load_model
from busdoor_gpu.engine.model_config import ModelConfig

TARGET_US = 600.0  # of a mixed step through a graph (references/gpu-next, bars of run 1)
# Of Llama-3.1-8B; its widths only decide how long the device works, so that narrow ones do here.
_LAYERS = 32
# Each step decodes 63 requests and admits one more.
_PROMPT, _ANSWER, _SLOTS, _BUDGET = 448, 64, 256, 512
_WARM = _ANSWER + 8  # steps until the batch is full and everything has run once


class _Event:
    """Stands for a CUDA event."""

    def record(self) -> None:
        """Do nothing."""


class _Replayed(StepGraphs):
    """Graphs that were never captured, and whose replay does nothing."""

    def _capture(self, key: Key, call: Callable[[], None]) -> None:
        """Do nothing."""

    def replay(self, key: Key) -> None:
        """Do nothing."""


class HostEngine(Engine):
    """An engine on a CPU that submits steps as on a GPU."""

    def __init__(self, *args: Any, graphs: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asynchronous = True
        if graphs:
            self.launcher.capture()


@dataclass(frozen=True)
class HostTime:
    """The host's median time of a mixed step.

    Attributes
    ----------
    path : {"graph", "eager"}
        How the step is launched.
    policy_us, submit_us : float
        Schedule and complete; pack, send and launch.
    launches : int
        Launches of Triton's kernels per step.
    """

    path: str
    policy_us: float
    submit_us: float
    launches: int


def measure(
    graphs: bool, steps: int = 200, layers: int = _LAYERS, driver: NoDriver | None = None
) -> HostTime:
    """Serve requests whose every step is mixed, and time what the host does; processor time, so that others may run.

    Parameters
    ----------
    graphs : bool
        Whether steps run as CUDA graphs.
    steps : int
        Steps to time.
    layers : int
        Layers of the model.
    driver : NoDriver, optional
        Triton's active driver, for the launches; without graphs it is needed.

    Examples
    --------
    >>> measured = measure(graphs=True, steps=4, layers=1)
    >>> measured.path, measured.submit_us > 0, measured.launches
    ('graph', True, 0)
    """
    shape = ModelShape(
        name="host-8b",
        num_hidden_layers=layers,
        hidden_size=128,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=128,
        intermediate_size=256,
        vocab_size=512,
        max_position_embeddings=4096,
    )
    model, backend = (
        load_model(ModelConfig(shape), "cpu", torch.bfloat16),
        load_backend("triton" if driver else "torch"),
    )
    policy = VllmPolicy(PagedKV(8192, 16), _SLOTS, _BUDGET, max_model_len=2048)
    kept: dict[Any, torch.Tensor] = {}

    def linear(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        key = (x.shape[0], weight.shape[0])
        if key not in kept:
            kept[key] = x.new_zeros(*key)
        return kept[key]

    times: list[tuple[float, float]] = []
    begun = 0
    with (
        mock.patch.object(busdoor_gpu.engine.model, "linear", linear),
        mock.patch.object(busdoor_gpu.engine.launcher, "StepGraphs", _Replayed),
        mock.patch.object(busdoor_gpu.engine.engine, "new_event", _Event),
    ):
        engine = HostEngine(model, policy, backend, 2048, graphs=graphs)
        for number in range(_WARM + steps):
            policy.add(Request(number, 0.0, _PROMPT, _ANSWER))
            if number == _WARM:
                begun = driver.launches if driver else 0
            times.append(_step(engine, policy))
    policy_us, submit_us = 1e6 * np.median(times[_WARM:], axis=0)
    launches = (driver.launches - begun) // steps if driver else 0
    return HostTime("graph" if graphs else "eager", float(policy_us), float(submit_us), launches)


def _step(engine: Engine, policy: VllmPolicy) -> tuple[float, float]:
    """Run one step; return the seconds of the policy and those of the submission."""
    start_s = time.process_time()
    batch = policy.schedule(0.0)
    assert batch is not None and batch.chunks, "every step admits a request"
    scheduled_s = time.process_time()
    engine.submit(batch)
    submitted_s = time.process_time()
    policy.complete(batch, 1)
    return scheduled_s - start_s + time.process_time() - submitted_s, submitted_s - scheduled_s


def format_times(times: Sequence[HostTime]) -> str:
    """Return the times as a readable table."""
    lines = [
        f"{'path':6} {'policy us':>10} {'submit us':>10} {'both us':>10} {'launches':>9}  target"
    ]
    for t in times:
        target = f"{TARGET_US:.0f} us" if t.path == "graph" else ""
        numbers = (
            f"{t.policy_us:10.0f} {t.submit_us:10.0f} {t.policy_us + t.submit_us:10.0f} "
            f"{t.launches:9}"
        )
        lines.append(f"{t.path:6} {numbers}  {target}".rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.host", description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps to time")
    parser.add_argument("--layers", type=int, default=_LAYERS, help="layers of the model")
    parser.add_argument(
        "--graphs-only",
        action="store_true",
        help="leave out the eager path, which compiles kernels",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    times = [measure(True, options.steps, options.layers)]
    if not options.graphs_only:
        times.append(eager(options.steps, options.layers))
    print(format_times(times))


def eager(steps: int, layers: int) -> HostTime:
    """Measure the eager path under `NoDriver`, which stays Triton's driver in this process."""
    from triton.runtime import driver as active  # type: ignore[import-untyped, import-not-found, unused-ignore]

    driver = NoDriver()
    active.set_active(driver)
    return measure(False, steps, layers, driver)


if __name__ == "__main__":
    main()
