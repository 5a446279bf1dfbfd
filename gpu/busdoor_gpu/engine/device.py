"""The device of a replay, described for its meta.json."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return name, memory, driver, clocks and versions.

    >>> sorted(describe_device(torch.device("cpu")))
    ['name', 'threads', 'versions']
    """
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    with suppress(PackageNotFoundError):
        versions["triton"] = version("triton")
    if device.type != "cuda":
        return {
            "name": _processor(),
            "threads": torch.get_num_threads(),
            "versions": versions,
        }
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": [properties.major, properties.minor],
        "versions": versions,
        **_driver(torch.cuda.current_device()),
    }


def _processor() -> str:
    """Return the processor's name; on Linux the platform module has only its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver(index: int) -> dict[str, Any]:
    """Return driver, clocks in MHz and power limit in watts, if nvidia-ml-py is installed."""
    try:
        import pynvml
    except ImportError:
        return {}
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        kinds = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}
        return {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "clock_mhz": {
                name: pynvml.nvmlDeviceGetClockInfo(handle, kind) for name, kind in kinds.items()
            },
            "max_clock_mhz": {
                name: pynvml.nvmlDeviceGetMaxClockInfo(handle, kind) for name, kind in kinds.items()
            },
            "power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        }
    except pynvml.NVMLError as error:
        return {"driver": f"unknown: {error}"}
    finally:
        pynvml.nvmlShutdown()


def allocator_retries(device: torch.device) -> int:
    """Return how often the GPU's memory was so full that cached memory had to be freed, which waits for the device."""
    return int(torch.cuda.memory_stats(device)["num_alloc_retries"]) if device.type == "cuda" else 0


def git_commit() -> str | None:
    """Return the commit of the source that runs; None outside a repository."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    return None
