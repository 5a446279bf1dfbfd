"""A calibration that is a scaled roofline: of a known GPU, model and engine, and of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.config.from_calibration import measured_lookahead
from busdoor.step_time import step_time_table
from busdoor.step_time.calibration_files import kind_of, read_calibration_tables
from busdoor.step_time.scaled_roofline import NAME

_CARD = {
    "name": "gpu",
    "model": "model",
    "tp": "tp",
    "weight_dtype": "weight_dtype",
    "kv_dtype": "kv_dtype",
}
_OTHER_SERVER = {
    "name",
    "model",
    "tp",
}  # keys of [gpu] with which it is not the one that was measured


def is_scaled(step_time: Any, folder: Path = Path()) -> bool:
    """Whether a [step_time] is the file of a calibration that holds a scaled roofline.

    >>> is_scaled("vllm-cpu"), is_scaled({"name": "roofline"})
    (False, False)
    """
    table = step_time_table(step_time)
    path = table.get("path") if isinstance(table, Mapping) else None
    if not isinstance(path, str):
        return False
    return kind_of(folder / path if (folder / path).is_file() else path) == NAME


def with_scaled(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a server's tables, filled with what such a calibration says of its server.

    On another GPU, with another model or with more GPUs, the scales are kept, and memory and limits
    are chosen anew.
    """
    step_time = step_time_table(data.get("step_time"))
    if not is_scaled(step_time, folder):
        return dict(data)
    path = (
        folder / step_time["path"]
        if (folder / step_time["path"]).is_file()
        else Path(step_time["path"])
    )
    saved = dict(read_calibration_tables(path)["step_time"])
    given = data.get("gpu", {})
    card = {key: saved[own] for key, own in _CARD.items() if own in saved}
    own_model = "model" not in given or given["model"] == card.get("model")
    kept = {key: value for key, value in card.items() if own_model or key in ("name", "tp")}
    table = {"name": NAME, "path": str(path)}
    if _OTHER_SERVER & given.keys() and any(
        given[key] != card.get(key) for key in _OTHER_SERVER & given.keys()
    ):
        scales = {
            key: value for key, value in saved.items() if key not in (*_CARD.values(), "engine")
        }
        table = {**scales, "name": NAME}
    ahead = measured_lookahead({"path": str(path)}, Path())
    engine = {"engine": saved["engine"]} if "engine" in saved else {}
    settled = {} if ahead is None or "engine" in data else {"lookahead": ahead}
    return {**engine, **settled, **data, "gpu": {**kept, **given}, "step_time": table}
