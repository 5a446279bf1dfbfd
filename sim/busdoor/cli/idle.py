"""Flags that would change nothing, which are refused: every flag has an effect or is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from busdoor.config import Config


def refuse_idle_flags(tables: Mapping[str, Any], data: Mapping[str, Any], settled: Config) -> None:
    """Raise ValueError for a flag that the rest of the configuration leaves without any effect.

    `tables` are set by the flags, `data` has them among the file's, `settled` is what they give.
    """
    from busdoor.config.from_calibration import refuse_other_hardware

    _refuse_what_pools_have(tables, data, settled)
    card = tables.get("gpu", {})
    given = {
        flag: (key, card[key])
        for flag, key in (("--gpu", "name"), ("--model", "model"))
        if key in card
    }
    refuse_other_hardware(given, data.get("step_time"))
    if "tp" in card and settled.step_time.describe()["name"] in ("calibrated", "linear"):
        name = settled.step_time.describe()["name"]
        raise ValueError(
            f"--tp {card['tp']} does not apply: a {name} step time is of one server as it is"
        )


# By flag: the table and key that it sets, and whether a pool's own tables replace that.
_OF_POOLS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], bool]]] = {
    "--gpu": ("gpu", "name", lambda pool: "name" in pool.get("gpu", {})),
    "--model": ("gpu", "model", lambda pool: "model" in pool.get("gpu", {})),
    "--step-time": ("step_time", "name", lambda pool: "step_time" in pool),
    "--policy": ("policy", "", lambda pool: "name" in pool.get("policy", {})),
}


def _refuse_what_pools_have(
    tables: Mapping[str, Any], data: Mapping[str, Any], settled: Config
) -> None:
    if settled.cluster is None or settled.cluster.replicas is not None:
        return
    pools = data["cluster"]["pool"]
    for flag, (table, key, own) in _OF_POOLS.items():
        if table in tables and (not key or key in tables[table]) and all(map(own, pools)):
            raise ValueError(
                f"{flag} would change nothing: every [[cluster.pool]] has its own; leave it out"
            )
