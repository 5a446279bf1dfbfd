"""What a calibration says of the server that was measured: its memory, and its scheduler's limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.step_time.calibrated import read_calibration_tables

MEMORY = ("num_blocks", "block_size")
LIMITS = ("max_num_seqs", "max_num_batched_tokens")


def measured_server(step_time: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Return the settings of the server behind a [step_time] that is a calibration; empty if it says none.

    Examples
    --------
    >>> measured_server({"name": "calibrated", "path": "vllm-cpu"}, Path())["max_num_seqs"]
    16
    >>> measured_server({"name": "roofline"}, Path())
    {}
    """
    path = step_time.get("path")
    if not isinstance(path, str):
        return {}
    try:
        tables = read_calibration_tables(folder / path if (folder / path).is_file() else path)
    except (ValueError, OSError):
        return {}  # what is wrong with it is said where the step time is made
    server = tables.get("calibration", {}).get("server", {})
    return {key: int(server[key]) for key in (*MEMORY, *LIMITS) if server.get(key)}


def measured_limits(step_time: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Return the scheduler's limits among the settings of the measured server."""
    return {key: value for key, value in measured_server(step_time, folder).items() if key in LIMITS}


def with_memory(kv: Mapping[str, Any], server: Mapping[str, int]) -> dict[str, Any]:
    """Fill a table [kv] with the measured server's memory, where it says nothing of its own.

    Examples
    --------
    >>> server = {"num_blocks": 512, "block_size": 16}
    >>> with_memory({"max_model_len": 100}, server)
    {'num_blocks': 512, 'block_size': 16, 'max_model_len': 100}
    >>> with_memory({"block_size": 32}, server)      # blocks of another size are others
    {'block_size': 32}
    """
    own = {} if set(MEMORY) & kv.keys() else {key: server[key] for key in MEMORY if key in server}
    return {**own, **kv}
