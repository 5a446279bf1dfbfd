"""What a calibration says of the measured server: memory, scheduler limits, hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from busdoor.catalog import gpu, model
from busdoor.step_time import step_time_table
from busdoor.step_time.calibration_files import kind_of, read_calibration_tables

MEMORY = ("num_blocks", "block_size")
LIMITS = ("max_num_seqs", "max_num_batched_tokens")


def measured_server(step_time: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Return the settings of the server behind a calibrated [step_time]; empty if none.

    >>> measured_server({"name": "calibrated", "path": "vllm-cpu"}, Path())["max_num_seqs"]
    16
    >>> measured_server({"name": "roofline"}, Path())
    {}
    """
    path = step_time.get("path")
    if not isinstance(path, str):
        return {}
    tables = _tables(folder / path if (folder / path).is_file() else path)
    server = tables.get("calibration", {}).get("server", {})
    return {key: int(server[key]) for key in (*MEMORY, *LIMITS) if server.get(key)}


def measured_lookahead(step_time: Mapping[str, Any], folder: Path) -> int | None:
    """Return the lookahead of the server behind a calibrated [step_time]; None if unknown.

    >>> measured_lookahead({"name": "calibrated", "path": "vllm-cpu"}, Path())
    0
    """
    path = step_time.get("path")
    if not isinstance(path, str):
        return None
    tables = _tables(folder / path if (folder / path).is_file() else path)
    found = tables.get("calibration", {}).get("lookahead")
    return found if found in (0, 1) else None


def measured_on(step_time: Any) -> dict[str, str]:
    """Return the GPU and model a [step_time] was measured with, as keys of [gpu], or empty.

    >>> measured_on({"name": "calibrated", "path": "h100-llama-3.1-8b"})
    {'name': 'NVIDIA H100 80GB HBM3', 'model': 'llama-3.1-8b'}
    >>> measured_on("roofline")
    {'name': '', 'model': ''}
    """
    table = step_time_table(step_time)
    path = table.get("path") if isinstance(table, Mapping) else None
    about = _tables(path).get("calibration", {}) if isinstance(path, str) else {}
    return {"name": str(about.get("gpu", "")), "model": str(about.get("model", ""))}


def refuse_other_hardware(given: Mapping[str, tuple[str, Any]], step_time: Any) -> None:
    """Raise ValueError for a GPU or model other than that with which the step time was measured.

    `given` has, by what messages call it, the key of [gpu] that it sets and its value.

    >>> refuse_other_hardware({"--gpu": ("name", "H100")}, "h100-llama-3.1-8b")
    >>> refuse_other_hardware({"--gpu": ("name", "h200")}, "h100-llama-3.1-8b")
    Traceback (most recent call last):
    ValueError: --gpu h200 does not apply: the step time was measured with NVIDIA H100 80GB HBM3; leave one of them out
    """
    table = step_time_table(step_time)
    if isinstance(table, Mapping) and kind_of(table.get("path")) == "scaled_roofline":
        return  # which holds for any GPU and model
    measured, find = measured_on(step_time), {"name": gpu, "model": model}
    for what, (key, value) in given.items():
        if measured[key] and _name(find[key], value) != _name(find[key], measured[key]):
            shown = f"the step time was measured with {measured[key]}"
            raise ValueError(f"{what} {value} does not apply: {shown}; leave one of them out")


def _name(find: Callable[[Any], Any], given: Any) -> str:
    """Return the catalogue's name of a GPU or model, else what it was called."""
    try:
        return str(find(given).name)
    except ValueError:
        return str(given).lower()


def _tables(path: str | Path) -> dict[str, Any]:
    try:
        return read_calibration_tables(path)
    except (ValueError, OSError):
        return {}  # what is wrong with it is said where the step time is made


def measured_limits(step_time: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Return the scheduler's limits among the settings of the measured server."""
    return {
        key: value for key, value in measured_server(step_time, folder).items() if key in LIMITS
    }


def with_memory(kv: Mapping[str, Any], server: Mapping[str, int]) -> dict[str, Any]:
    """Fill a table [kv] with the measured server's memory, where it has none of its own.

    >>> server = {"num_blocks": 512, "block_size": 16}
    >>> with_memory({"max_model_len": 100}, server)
    {'num_blocks': 512, 'block_size': 16, 'max_model_len': 100}
    >>> with_memory({"block_size": 32}, server)      # blocks of another size are others
    {'block_size': 32}
    """
    own = {} if set(MEMORY) & kv.keys() else {key: server[key] for key in MEMORY if key in server}
    return {**own, **kv}
