"""Files of calibrations: those of the user, and those that ship under a name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from busdoor.core.names import unknown
from busdoor.core.toml import parse_toml, read_toml

FORMAT = 2  # 2: with [draws]; 1, without the key, has intervals alone


def calibration_names() -> list[str]:
    """Names of the calibrations that were measured here.

    >>> "vllm-cpu" in calibration_names()
    True
    """
    folder = resources.files("busdoor") / "calibrations"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def read_calibration_tables(path: str | Path) -> dict[str, Any]:
    """Read the tables of a calibration's file, or of one that ships under a name.

    Raises ValueError if there is no such file or name, or it is no calibration.
    """
    if Path(path).is_file():
        tables = read_toml(path).data
    elif str(path) in calibration_names():
        text = (resources.files("busdoor") / "calibrations" / f"{path}.toml").read_text(
            encoding="utf-8"
        )
        tables = parse_toml(text, f"{path}.toml").data
    else:
        raise unknown("a calibration's file or name", str(path), calibration_names())
    if not isinstance(tables.get("step_time"), dict):
        raise ValueError(
            f"{path} is no calibration: it has no table [step_time]; busdoor calibrate writes one"
        )
    found = tables.get("calibration", {}).get("format", 1)
    if found not in range(1, FORMAT + 1):
        raise ValueError(
            f"{path}: format = {found!r} is newer than {FORMAT}, which this version of busdoor "
            f"reads; update busdoor"
        )
    return tables


def read_draws(path: str | Path) -> list[dict[str, Any]]:
    """Return the draws of the fit in a calibration's file: fields of its step time, all together.

    Empty for a file of format 1, which has an interval for each term but not how they go together.

    >>> read_draws("vllm-cpu")
    []
    """
    table = read_calibration_tables(path).get("draws", {})
    counts = {len(values) for values in table.values()}
    if len(counts) > 1:
        raise ValueError(f"{path}: [draws] has lists of {sorted(counts)} values; all need as many")
    return [
        {key: values[i] for key, values in table.items()} for i in range(max(counts, default=0))
    ]


def read_step_time_table(path: str | Path) -> dict[str, Any]:
    """Fields of the calibrated step time in a calibration's file."""
    fields = dict(read_calibration_tables(path)["step_time"])
    if fields.pop("name", "calibrated") != "calibrated":
        raise ValueError(f"{path}: its [step_time] is not calibrated; use it as --config")
    return fields


def kind_of(path: object) -> str:
    """Return the step time's name in a calibration's file; `calibrated` where unreadable.

    >>> kind_of("vllm-cpu"), kind_of(None)
    ('calibrated', 'calibrated')
    """
    if not isinstance(path, str | Path):
        return "calibrated"
    try:
        table = read_calibration_tables(path)["step_time"]
    except (ValueError, OSError):
        return "calibrated"  # which says what is wrong with it
    return "scaled_roofline" if table.get("name") == "scaled_roofline" else "calibrated"
