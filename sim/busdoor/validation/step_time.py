"""The step time that measured runs are held against: a calibration, or a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from busdoor.config import Config
from busdoor.config.scaled import is_scaled
from busdoor.results.result import Result
from busdoor.step_time import StepTime, make_step_time, step_time_table
from busdoor.step_time.calibration_files import read_calibration_tables

PREDICTED = ("roofline", "operators")
_CARD = {"name": "gpu", "model": "model", "tp": "tp"}


class Judged(NamedTuple):
    """A step time, what is known of it, and the server that it is of, if it says."""

    step_time: StepTime
    about: Mapping[str, Any]
    server: Config | None


def judged(
    name: str,
    measured: Sequence[Result],
    policy: Mapping[str, Any] | None = None,
    **server: Any,
) -> Judged:
    """Return what a --step-time means: `roofline`, `operators`, or a calibration's file or name.

    The measured runs' meta names GPU, model and tp where `server` (gpu, model, tp, engine) does
    not; `policy` is for runs without one. Raises ValueError if the GPU or the model is not known,
    or there is no such calibration.
    """
    given = {key: value for key, value in server.items() if value is not None}
    if name not in PREDICTED and not is_scaled(name):
        if given:
            flag = f"--{next(iter(given))}"
            raise ValueError(
                f"{flag} applies to --step-time roofline and operators, not to {name}; leave it out"
            )
        about = read_calibration_tables(name).get("calibration", {})
        return Judged(make_step_time("calibrated", path=name), about, None)
    scheduler = {key: value for key, value in (policy or {}).items() if key not in _MEMORY}
    tables: dict[str, Any] = {
        "step_time": step_time_table(name),
        "policy": {"name": "vllm", **scheduler},
    }
    if "engine" in given:
        tables["engine"] = given.pop("engine")
    metas = {} if is_scaled(name) else _named(measured)
    tables["gpu"] = {
        key: value for key, own in _CARD.items() if (value := given.get(own, metas.get(own)))
    }
    if not is_scaled(name):
        for key in ("name", "model"):
            if key not in tables["gpu"]:
                flag = f"--{_CARD[key]}"
                raise ValueError(
                    f"the runs do not name their {_CARD[key]}, which a {name} needs; give it with "
                    f"{flag}"
                )
    about = (
        read_calibration_tables(name).get("calibration", {}) if is_scaled(name) else {"name": name}
    )
    config = Config.from_table(tables)
    return Judged(config.step_time, about, config)


_MEMORY = ("num_blocks", "block_size", "max_model_len", "label")


def _named(measured: Sequence[Result]) -> dict[str, Any]:
    """Return GPU, model and tp that all runs name alike."""
    metas = [result.meta for result in measured]
    return {
        key: metas[0][key]
        for key in _CARD.values()
        if metas and metas[0].get(key) and all(meta.get(key) == metas[0][key] for meta in metas)
    }
