"""Recommendations as folders and as JSON; the runs beside them, from which a search goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from busdoor.core.json import plain, read_object, write_json
from busdoor.core.saved import Keys, check_keys, read_csv, write_csv
from busdoor.core.study_folder import check_free, clear
from busdoor.recommend.data import RecommendationData
from busdoor.recommend.summary_text import verdict
from busdoor.recommend.table_text import notes

MARKER = "recommend.json"
_KEYS: Keys = {"verdict": str, "slo_text": str, "config": dict, "versions": dict, "study": str}


class Saved(NamedTuple):
    """A recommendation as its folder has it."""

    table: pd.DataFrame
    ladder: pd.DataFrame
    about: dict[str, Any]


def to_dict(found: RecommendationData, study: str = "") -> dict[str, Any]:
    """Return all numbers as JSON: null for what is not a number."""
    table = found.table

    def row(place: Any) -> dict[str, Any] | None:
        if place is None:
            return None
        own = found.best(place)
        match = table[table["servers"] == own.candidate.title].iloc[0]
        return {**plain(match.to_dict()), "config": own.table}

    content = {
        "complete": found.complete,
        "verdict": verdict(found),
        "request_rate": found.request_rate,
        "slo": found.slo.to_dict(),
        "slo_text": str(found.slo),
        "winner": row(found.winner),
        "runner_up": row(found.runner_up),
        "undecided": [found.best(place).candidate.title for place in found.undecided],
        "front": table[table["on_front"]].to_dict("records"),
        "candidates": table.to_dict("records"),
        "ladder": found.ladder.reset_index().to_dict("records"),
        "confidence": found.confidence,
        "certainty": dict(found.certainty),
        "notes": notes(found),
        "num_runs": found.num_runs,
        "num_requests": found.num_requests,
        "config": found.config.to_dict(),
        "versions": found.versions,
        "study": study,
    }
    return {key: plain(value) for key, value in content.items()}


def claim(folder: Path, study: str, overwrite: bool) -> None:
    """Check that a folder is free, or has runs of the same study, which goes on there.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    file = folder / MARKER
    if overwrite:
        check_free(folder, overwrite)
        clear(folder)
    elif not (file.exists() and read_object(file).get("study") == study):
        check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        write_json(file, {"study": study, "complete": False})


def write(found: RecommendationData, folder: Path, study: str) -> None:
    """Write recommend.json, candidates.csv and ladder.csv beside the runs."""
    write_csv(found.table, folder / "candidates.csv", index=False)
    write_csv(found.ladder, folder / "ladder.csv")
    write_json(folder / MARKER, to_dict(found, study))


def load(folder: Path) -> Saved:
    """Read what `write` wrote."""
    about = read_object(folder / MARKER)
    check_keys(about, str(folder / MARKER), _KEYS)
    ladder = read_csv(folder / "ladder.csv")
    return Saved(read_csv(folder / "candidates.csv"), ladder, about)
