"""A twin's predictions beside what was measured: errors, their parts, and the gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.calibration import Calibration
from busdoor.core.json import read_object, write_json
from busdoor.core.saved import write_csv
from busdoor.observe.ttft_split import ttft_split
from busdoor.observe.twin.budget import e2e_budget
from busdoor.observe.twin.folder import PARTS, PREDICTIONS, TABLE, Seen
from busdoor.observe.twin.prediction import ServerModel, with_measured


@dataclass(frozen=True)
class ServerTwin:
    """A calibrated server, and how far its predictions were off.

    A request spends `front_end_s` seconds outside the engine. `table` has a row per predicted run
    and quantity: predicted, measured, error, error_ms, n, half_width. By run with a step log, in
    seconds by part: `splits` of the mean TTFT, and `budgets` of a predicted mean E2E latency's
    error. `gains`, predicted and measured: of each static burst with a continuous one of the same
    requests.
    """

    calibration: Calibration
    front_end_s: float
    table: pd.DataFrame
    splits: Mapping[str, Mapping[str, float]]
    budgets: Mapping[str, Mapping[str, float]]
    gains: list[dict[str, Any]]


def write_comparison(
    calibration: Calibration,
    model: ServerModel,
    calibrated: Mapping[str, Seen],
    predicted: Mapping[str, Seen],
    folder: Path,
) -> ServerTwin:
    """Compare predictions with their runs, and write the table and its parts into the folder.

    ValueError if a prediction was written after its run had begun.
    """
    table = compared(predicted, folder)
    write_csv(table, folder / TABLE, index=False)
    recorded = {
        name: (own.client, own.engine)
        for name, own in {**calibrated, **predicted}.items()
        if own.engine is not None and not _is_static(own)
    }
    e2e_s = table[table["quantity"] == "e2e_mean"].set_index("run")["predicted"]
    made = ServerTwin(
        calibration,
        model.front_end_s,
        table,
        {name: ttft_split(*pair) for name, pair in recorded.items()},
        {
            name: e2e_budget(*recorded[name], model, float(e2e_s[name]))
            for name in predicted
            if name in recorded
        },
        _gains(predicted, table),
    )
    meta = next(iter(calibrated.values())).client.meta
    keys = ("url", "served_model", "server_version", "num_blocks", "block_size")
    parts = {
        "server": {key: meta[key] for key in keys if meta.get(key)},
        "front_end_s": made.front_end_s,
        "ttft_s": made.splits,
        "e2e_error_s": made.budgets,
        "gains": made.gains,
    }
    write_json(folder / PARTS, parts)
    return made


def compared(seen: Mapping[str, Seen], folder: Path) -> pd.DataFrame:
    """Put every measured run beside its prediction; ValueError if that is the later one."""
    tables = []
    for name, own in seen.items():
        document = read_object(folder / PREDICTIONS / f"{name}.json")
        started_s = float(own.client.meta["started_at"])
        if not document["written_at"] < started_s:
            raise ValueError(f"{PREDICTIONS}/{name}.json was written after {name} was measured")
        rows = pd.DataFrame(document["rows"]).astype({"load": float, "predicted": float})
        tables.append(with_measured(rows, own.client, own.engine))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _is_static(seen: Seen) -> bool:
    return bool(seen.client.meta.get("whole_batch"))


def _gains(seen: Mapping[str, Seen], table: pd.DataFrame) -> list[dict[str, Any]]:
    """Pair static bursts with continuous ones of the same requests, in the order of both."""
    found = table[table["quantity"] == "saturated_rate"].set_index("run")
    found = found[["predicted", "measured"]].dropna()
    rates = found.to_dict("index")
    names = [name for name in seen if name in rates]
    statics = [name for name in names if _is_static(seen[name])]
    lengths = seen[statics[0]].client.requests["input_tokens"].tolist() if statics else []
    continuous = [
        name
        for name in names
        if name not in statics and seen[name].client.requests["input_tokens"].tolist() == lengths
    ]
    return [
        {
            "continuous": one,
            "static": other,
            **{side: rates[one][side] / rates[other][side] for side in ("predicted", "measured")},
        }
        for one, other in zip(continuous, statics, strict=False)
    ]
