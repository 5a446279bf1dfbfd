"""Comparisons as folders of tables, results and pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor import plots
from busdoor.cluster.per_replica import replica_table
from busdoor.comparison.bounds import FORMS, SDS
from busdoor.comparison.data import METRICS, ComparisonData
from busdoor.comparison.summary_text import gain_text, verdict
from busdoor.config import Config
from busdoor.core.import_paths import as_data
from busdoor.core.json import plain, read_object, write_json
from busdoor.core.json import to_json as to_text
from busdoor.core.progress import Report
from busdoor.core.saved import (
    REPAIR,
    Keys,
    check_columns,
    check_keys,
    check_rows,
    read_csv,
    write_csv,
)
from busdoor.core.study_folder import StudyFolder
from busdoor.core.study_paths import folder_names
from busdoor.results.result import Result, write_result
from busdoor.simulator.describe import versions

_COMPARISON = "comparison.json"
_KEYS: Keys = {
    "policies": dict,
    "results": list,
    "config": dict,
    "replications?": int,
    "rows?": dict,
}
_RATES = ("request_throughput", "output_throughput")


def write(comparison: ComparisonData, place: StudyFolder, report: Report | None = None) -> Path:
    """Write a comparison, and return its folder.

    It receives comparison.json (verdict, table, gain, ladder and configuration), the tables
    table.csv, intervals.csv, gain.csv, replications.csv and capacities.csv, ladder.csv and
    rungs.csv where there is a ladder, a folder in results/ for each row's first replication, and
    the pictures in plots/.
    """
    folder = place.part
    write_json(folder / _COMPARISON, to_json(comparison))
    write_csv(comparison.table, folder / "table.csv")
    write_csv(comparison.intervals, folder / "intervals.csv")
    write_csv(comparison.gain, folder / "gain.csv")
    write_csv(comparison.summaries, folder / "replications.csv")
    write_csv(comparison.capacities, folder / "capacities.csv")
    if len(comparison.forms):
        write_csv(comparison.forms.rename_axis("policy"), folder / "forms.csv")
        write_csv(comparison.bounds, folder / "bounds.csv")
    if len(comparison.chances):
        write_csv(comparison.chances, folder / "chances.csv")
    if len(comparison.rungs):
        write_csv(comparison.ladder, folder / "ladder.csv")
        write_csv(comparison.rungs, folder / "rungs.csv")
    places = folder_names(comparison.results)
    for name, result in comparison.results.items():
        saved = write_result(result, folder / "results" / places[name])
        if comparison.config.cluster is not None:
            write_csv(replica_table(result), saved / "replicas.csv")
    place.kept = True
    save_plots(comparison, folder / "plots", report)
    return place.publish()


def save_plots(
    comparison: ComparisonData, folder: Path, report: Report | None = None
) -> list[Path]:
    """Draw a comparison into a folder, as PNG and SVG."""
    runs = list(comparison.bus_and_door.values())
    draws: dict[str, Callable[[], Any]] = {
        "compare": lambda: plots.plot_compare(comparison.results, headline=gain_text(comparison)),
        "timeline": lambda: plots.plot_bus_and_door(runs[0], runs[-1]),
    }
    if (
        comparison.gain.drop(index=comparison.static).notna().all(axis=None)
        and len(comparison.gain) > 1
    ):
        draws["gain"] = lambda: plots.plot_gain_bars(comparison.gain, comparison.static).figure
    if len(comparison.ladder):
        draws["ladder"] = lambda: plots.plot_ladder(comparison.ladder).figure
    files: list[Path] = []
    for number, (name, draw) in enumerate(draws.items()):
        if report:
            report(number / len(draws), f"drawing {name}")
        files += plots.save_figure(draw(), folder / name)
    return files


def load(folder: Path) -> ComparisonData:
    """Read a saved comparison back.

    Raises ValueError if the folder holds no comparison.
    """
    if not (folder / _COMPARISON).exists():
        raise ValueError(f"{folder} holds no comparison: it has no {_COMPARISON}")
    about = read_object(folder / _COMPARISON)
    check_keys(about, str(folder / _COMPARISON), _KEYS)
    if not about["results"]:
        raise ValueError(f"{folder / _COMPARISON}: results is [], not a list of policies; {REPAIR}")
    labels = {
        name: folder / "results" / place for name, place in folder_names(about["results"]).items()
    }
    config = saved_config(about)
    summaries = _read(folder / "replications.csv", METRICS, about)
    return ComparisonData(
        config=config,
        results={name: Result.load(path) for name, path in labels.items()},
        summaries=summaries,
        capacities=_read(folder / "capacities.csv", _RATES, about),
        **(
            {"rungs": _read(folder / "rungs.csv", (), about)}
            if (folder / "rungs.csv").exists()
            else {}
        ),
        forms=_by_policy(folder / "forms.csv", (*FORMS, *SDS)),
        chances=_by_policy(folder / "chances.csv", ("chance",)),
    )


def saved_config(about: Mapping[str, Any]) -> Config:
    """Return the configuration in a study's JSON: nothing is imported, no file need be there."""
    with as_data():
        return Config.from_table(about["config"], exists=False)


def to_json(comparison: ComparisonData) -> dict[str, Any]:
    """Return the comparison's numbers as JSON: null for what is not a number."""
    content = {
        "complete": comparison.complete,
        "verdict": verdict(comparison),
        "policies": comparison.table.to_dict("index"),
        "gain": comparison.gain.to_dict("index"),
        "ladder": [
            {"rung": name, **row} for name, row in comparison.ladder.to_dict("index").items()
        ],
        "slo_chances": comparison.chances.to_dict("index"),
        "bounds": comparison.bounds.reset_index().to_dict("records"),
        "results": list(comparison.results),
        "replications": int(comparison.summaries.groupby("policy").size().max()),
        "prediction": comparison.config.prediction,
        "config": comparison.config.to_dict(),
        "versions": versions(),
        "rows": {
            "replications": len(comparison.summaries),
            "capacities": len(comparison.capacities),
        },
    }
    return {key: plain(value) for key, value in content.items()}


def to_perfetto(comparison: ComparisonData, file: str | Path) -> None:
    """Write each policy's first replication into one Chrome trace, one process per server."""
    events: list[dict[str, Any]] = []
    first = 0
    for result in comparison.results.values():
        events += [
            event | {"pid": first + event["pid"]} for event in result.to_perfetto()["traceEvents"]
        ]
        first += len(result.meta.get("replicas", [None]))
    Path(file).write_text(
        to_text({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8"
    )


def _by_policy(file: Path, numbers: Collection[str]) -> pd.DataFrame:
    """Read closed forms, or chances; earlier versions wrote none."""
    if not file.exists():
        return pd.DataFrame()
    return check_columns(read_csv(file), file, numbers, ("policy",)).set_index("policy")


def _read(file: Path, numbers: Collection[str], about: Mapping[str, Any]) -> pd.DataFrame:
    """Read a table with a row per policy and replication, and check it."""
    table = check_columns(read_csv(file), file, ("replication", *numbers), ("policy",))
    check_rows(table, file, (about.get("rows") or {}).get(file.stem), _COMPARISON)
    unknown = set(table["policy"]) - set(about["policies"]) if numbers else set()
    if unknown or not len(table):
        what = (
            f"rows of {sorted(unknown)[0]!r}, which {_COMPARISON} does not have"
            if unknown
            else "no rows"
        )
        raise ValueError(f"{file} has {what}; {REPAIR}")
    return table.set_index(["policy", "replication"])
