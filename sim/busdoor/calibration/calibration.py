"""A calibration: the fitted step time, its quality, its data; as object and as file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from busdoor.core.registry import checked
from busdoor.html.notebook import notebook_html
from busdoor.results.result import Result
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.calibration_files import (
    FORMAT,
    read_calibration_tables,
    read_draws,
)
from busdoor.step_time.scaled_roofline import NAME as SCALED
from busdoor.step_time.scaled_roofline import ScaledRooflineStepTime

_META_KEYS = ("gpu", "device", "model", "dtype", "lookahead", "clock", "engine", "git_commit")


@dataclass(frozen=True)
class Calibration:
    """A step time fitted to measurements.

    Parameters
    ----------
    step_time : CalibratedStepTime or ScaledRooflineStepTime
        The model.
    intervals : mapping
        95 % bootstrap interval of each term, [low, high]; a list of them for `per_token_s`.
    errors : mapping of str to float
        Relative errors of iterations, on the data fitted and held out: mean absolute, 90th
        percentile, total.
    held_out : mapping
        The same for each group that was left out.
    about : mapping
        Name, date, device, dtype, model, versions, runs, counts.
    draws : sequence of mapping
        All terms together, as often as they were fitted to resamples: their joint uncertainty.
        Empty in files of format 1, which have `intervals` alone.

    Examples
    --------
    >>> calibration = Calibration.load("vllm-cpu")
    >>> calibration.about["model"], calibration.step_time.describe()["name"]
    ('llama-256x4', 'calibrated')
    """

    step_time: CalibratedStepTime | ScaledRooflineStepTime
    intervals: Mapping[str, Any]
    errors: Mapping[str, float]
    held_out: Mapping[str, Mapping[str, float]]
    about: Mapping[str, Any]
    draws: Sequence[Mapping[str, Any]] = ()

    def _repr_html_(self) -> str:
        terms = self.step_time.describe()
        rows = [(key, [str(terms[key]), str(interval)]) for key, interval in self.intervals.items()]
        errors = [(key, [f"{error:.1%}"]) for key, error in self.errors.items()]
        tables = (("value", "95 % interval"), rows), (("error",), errors)
        return notebook_html(str(self.about.get("name", "")), *tables)

    def to_dict(self) -> dict[str, Any]:
        """Return the tables of its file."""
        step_time = {
            key: value
            for key, value in self.step_time.describe().items()
            if value not in ("", [], False)
        }
        return {
            "calibration": {**self.about, **({"format": FORMAT} if self.draws else {})},
            "step_time": step_time,
            "errors": dict(self.errors),
            "intervals": dict(self.intervals),
            "held_out": {key: dict(value) for key, value in self.held_out.items()},
            "draws": {
                key: [draw[key] for draw in self.draws] for key in next(iter(self.draws), ())
            },
        }

    def save(self, path: str | Path) -> Path:
        """Write it as TOML, to be read by `--step-time FILE`."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_toml(self.to_dict()), encoding="utf-8")
        return file

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file, or a calibration that ships under a name.

        Raises
        ------
        ValueError
            If there is none, or it is no calibration.
        """
        tables = read_calibration_tables(path)
        named = tables["step_time"].get("name")
        kind = ScaledRooflineStepTime if named == SCALED else CalibratedStepTime
        step_time: Any = checked(kind, {"path": str(path)}, f"{path}: [step_time]")
        parts = {key: tables.get(key, {}) for key in ("intervals", "errors", "held_out")}
        about = {
            key: value for key, value in tables.get("calibration", {}).items() if key != "format"
        }
        return cls(step_time=step_time, about=about, draws=read_draws(path), **parts)


def about_runs(
    results: Sequence[Result], names: Sequence[str], policy: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what was measured, from the runs' meta; what they do not agree on is a list.

    `policy` has the fields that the user gave in place of the runs' own. Raises ValueError if the
    runs are of several devices, models or dtypes.
    """
    about: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "runs": list(names)}
    metas = [
        {**result.meta, "clock": (result.meta.get("step_time") or {}).get("clock")}
        for result in results
    ]
    for key in _META_KEYS:
        found = [meta[key] for meta in metas if meta.get(key) is not None]
        different = [value for i, value in enumerate(found) if value not in found[:i]]
        if len(different) > 1 and key in ("gpu", "model", "dtype"):
            raise ValueError(
                f"the runs are of different {key}s ({', '.join(map(str, different))}); calibrate "
                f"them apart"
            )
        if different:
            about[key] = different[0] if len(different) == 1 else different
    about["server"] = _server(results, policy or {})
    for key in ("model_shape", "versions"):
        if isinstance(value := results[0].meta.get(key), Mapping):
            about[key] = dict(value)
    return about


def _server(results: Sequence[Result], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return memory and limits that all runs had, and all that the user gave of the server.

    A simulation with the calibration uses them unless others are given.
    """
    keys = ("num_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens")
    metas = [{**result.meta, **(result.meta.get("policy_config") or {})} for result in results]
    first = metas[0] if metas else {}
    agreed = {
        key: first[key]
        for key in keys
        if first.get(key) and all(own.get(key) == first[key] for own in metas)
    }
    return agreed | {"policy" if key == "name" else key: value for key, value in given.items()}


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested tables as TOML; what is None is left out.

    >>> print(to_toml({"seed": 1, "errors": {"total": 0.5, "left out": float("nan")}}))
    seed = 1
    <BLANKLINE>
    [errors]
    total = 0.5
    "left out" = nan
    <BLANKLINE>
    """
    plain = {
        key: value
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    }
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            name = f"{prefix}{_key(key)}"
            own = to_toml(value, f"{name}.")
            text += own if own.startswith(f"\n[{name}.") else f"\n[{name}]\n{own}"
    return text


def _key(key: str) -> str:
    if key.replace("_", "").replace("-", "").isalnum() and key.isascii():
        return key
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' * (value < 0)}inf"
    return json.dumps(value)
