"""A driver of Triton without a GPU: kernels are compiled for an H100, and launching one counts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class _Utils:
    """What Triton asks about a device: an H100's limits (CUDA programming guide) and binaries that need no loading."""

    def load_binary(self, *args: Any) -> tuple[int, int, int, int, int]:
        """Return module, function, registers, spills and threads of a kernel."""
        return 0, 0, 32, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Return the limits that kernels are checked against."""
        return {
            "max_shared_mem": 232448,
            "multiprocessor_count": 132,
            "max_num_regs": 65536,
            "warpSize": 32,
            "sm_clock_rate": 1980000,
            "mem_clock_rate": 1,
            "mem_bus_width": 1,
        }


class NoDriver:
    """A driver of Triton that compiles for sm_90 and counts launches instead of making them."""

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped, import-not-found, unused-ignore]

        self.launches = 0
        self.utils = _Utils()
        self._target = GPUTarget("cuda", 90, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Return what launches a kernel."""

        def launch(*args: Any) -> None:
            self.launches += 1

        return launch

    def get_current_device(self) -> int:
        """Return the device's number."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Return the stream's number."""
        return 0

    def get_current_target(self) -> Any:
        """Return what to compile for."""
        return self._target

    def get_active_torch_device(self) -> torch.device:
        """Return where tensors are."""
        return torch.device("cpu")
