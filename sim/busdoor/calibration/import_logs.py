"""Reading what was measured, by us or by others, into our schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.vllm_log import KEYS, read_vllm_log
from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.results.result import Result
from busdoor_workloads.reading.csv_table import read_csv
from busdoor_workloads.reading.json_table import read_json, read_jsonl
from busdoor_workloads.reading.sniff import sniff

ENGINE_FOLDER = (
    "engine"  # in the folder of an observation: what the server's engine recorded itself
)
# The columns that a plain CSV may have; times in seconds from any common zero.
CSV_TIMES = ("arrival_s", "first_token_s", "finish_s")
CSV_LATENCIES = {"first_token_s": "ttft_s", "finish_s": "e2e_s"}
_SUFFIXES = re.compile(r"(\.(json|jsonl|csv|gz|zst))+$")


def load_measured(
    path: str | Path, about: Mapping[str, Any] | None = None, run: int | None = None
) -> Result:
    """Read a measured run, whatever wrote it.

    Parameters
    ----------
    path : str or Path
        A folder of ours (replay, profile, simulate, observe: there the iterations that the engine
        recorded, if it has them, else what the client saw); a vLLM engine log (`read_vllm_log`);
        the JSON of `vllm bench serve --save-result --save-detailed`; LLMServingSim's
        requests.jsonl; or a CSV with arrival_s, input_tokens, output_tokens, first_token_s (or
        ttft_s) and finish_s (or e2e_s).
    about : mapping, optional
        Further entries of its meta: gpu, model, policy_config, num_blocks ...
    run : int, optional
        Which result to take (1 first) of a JSON file to which several were appended.

    Returns
    -------
    Result
        Its tables of iterations and stays are empty where only requests were measured.

    Raises
    ------
    ValueError
        If it is none of these, or does not hold together, in one sentence.
    """
    path = Path(path)
    container, columns = sniff(path)
    is_json = container == "json" or bool(set(columns) & {"iterations", "input_lens"})
    if run is not None and not is_json:
        raise ValueError(
            f"run (--run) applies only to a file of vLLM results, which {path.name} is not; leave "
            f"it out"
        )
    if path.is_dir():
        recorded = path / ENGINE_FOLDER
        result = Result.load(recorded if recorded.is_dir() else path)
        return Result(
            result.requests, result.iterations, result.stays, {**result.meta, **(about or {})}
        )
    if is_json:
        return _read_json(path, about or {}, run)
    read: Callable[[Path], pd.DataFrame] = _llmservingsim if container == "jsonl" else _csv
    return from_requests_table(read(path), path.stem, about)


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name measured runs by folders or files; where two clash, with the folder above.

    Examples
    --------
    >>> run_names([Path("a/vllm"), Path("b/vllm"), Path("rate_0.5"), Path("rate_4.json.gz")])
    ['a-vllm', 'b-vllm', 'rate_0.5', 'rate_4']
    """
    whole = [path.resolve() for path in paths]
    names = [_SUFFIXES.sub("", path.name) for path in whole]
    return [
        f"{path.parent.name}-{name}" if names.count(name) > 1 else name
        for path, name in zip(whole, names, strict=True)
    ]


def _read_json(path: Path, about: Mapping[str, Any], run: int | None) -> Result:
    document = read_json(path, run)
    if set(document) >= KEYS:
        return read_vllm_log(path, about)
    if "input_lens" in document:
        return from_requests_table(
            _vllm_bench(document, path.name), path.stem, {**_gaps(document), **about}
        )
    raise ValueError(
        f"{path.name} is neither a log of vLLM's engine (config, requests, iterations) nor a "
        f"result of vllm bench "
        f"serve (input_lens ...; run it with --save-detailed)"
    )


def from_requests_table(
    table: pd.DataFrame, name: str, about: Mapping[str, Any] | None = None
) -> Result:
    """Make a result of arrival_s, input_tokens, output_tokens, first_token_s, finish_s.

    Raises
    ------
    ValueError
        If a time precedes the one it follows; the sentence names the request.

    Examples
    --------
    >>> table = pd.DataFrame({"arrival_s": [5.0], "input_tokens": [9], "output_tokens": [3], "first_token_s": [5.5],
    ...                       "finish_s": [6.5]})
    >>> result = from_requests_table(table, "mine")
    >>> result.summary["mean_ttft_ms"], result.summary["mean_tpot_ms"]
    (500.0, 500.0)
    """
    table = table.sort_values("arrival_s", kind="stable", ignore_index=True)
    for before, after in (("arrival_s", "first_token_s"), ("first_token_s", "finish_s")):
        wrong = np.flatnonzero(table[after] < table[before] - 1e-9)
        if len(wrong):
            row = table.iloc[wrong[0]]
            raise ValueError(
                f"{name} request {wrong[0]}: {after} {row[after]} is before {before} {row[before]}"
            )
    zero = float(table["arrival_s"].min())
    for column in (*CSV_TIMES, "first_scheduled_s"):
        table[column] = table[column] - zero if column in table else np.nan
    table["request_id"] = np.arange(len(table))
    table["released_s"] = table["finish_s"]
    table["max_output_tokens"] = table["output_tokens"]
    table["num_preemptions"] = table["cached_tokens"] = table["replica"] = 0
    table["status"] = np.where(table["finish_s"].notna(), "finished", "unfinished")
    # The server's memory, slots and lookahead are not observed, and so not written.
    meta = {"policy": "measured", "streams": True, "trace": name, "num_requests": len(table),
            "trace_duration_s": float(table["arrival_s"].max()), **(about or {})}  # fmt: skip
    return Result(
        table[[*REQUEST_COLUMNS, "status"]],
        _empty(ITERATION_COLUMNS),
        _empty(STAY_COLUMNS, "slot"),
        meta,
    )


def _empty(columns: tuple[str, ...], *more: str) -> pd.DataFrame:
    return pd.DataFrame(
        {column: np.array([], dtype=float) for column in (*columns, *more, "replica")}
    )


def _vllm_bench(document: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Read `vllm bench serve`'s lists; a failed request has no output, and is left out."""
    lists = ("start_times", "input_lens", "output_lens", "ttfts", "itls")
    for key in lists:
        if not isinstance(document.get(key), list):
            raise ValueError(
                f"{name} has no list {key}; vllm bench serve writes it with --save-result "
                f"--save-detailed"
            )
    lengths = {key: len(document[key]) for key in lists}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name} has lists of different lengths: {lengths}")
    table = pd.DataFrame({key: document[key] for key in lists})
    table = table[table["output_lens"] > 0]
    first_s = table["start_times"] + table["ttfts"]
    return pd.DataFrame(
        {
            "arrival_s": table["start_times"],
            "input_tokens": table["input_lens"],
            "output_tokens": table["output_lens"],
            "first_token_s": first_s,
            "finish_s": first_s + table["itls"].map(sum),
        }
    )


def _gaps(document: Mapping[str, Any]) -> dict[str, Any]:
    """All gaps between tokens, for the ITL that a table of requests cannot give."""
    return {"itls_s": [gap for gaps in document.get("itls") or [] for gap in gaps]}


_LLMSERVINGSIM = {
    "queued_ts": "arrival_s",
    "input_toks": "input_tokens",
    "output_toks": "output_tokens",
    "scheduled_ts": "first_scheduled_s",
    "first_token_ts": "first_token_s",
    "last_token_ts": "finish_s",
}


def _llmservingsim(path: Path) -> pd.DataFrame:
    """Read what `bench run` writes; a request arrives when queued: the clock of the rest.

    `arrival_time` is of the client and by another clock.
    """
    table = read_jsonl(path).frame
    return _renamed(table, _LLMSERVINGSIM, path, "requests.jsonl of LLMServingSim's bench")


def _csv(path: Path) -> pd.DataFrame:
    table = read_csv(path).frame
    for time, latency in CSV_LATENCIES.items():
        if time not in table and latency in table and "arrival_s" in table:
            table[time] = table["arrival_s"] + table[latency]
    wanted = ("arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s")
    return _renamed(table, {name: name for name in wanted}, path, "CSV of per-request times")


def _renamed(
    table: pd.DataFrame, columns: Mapping[str, str], path: Path, what: str
) -> pd.DataFrame:
    for column in columns:
        if column not in table:
            latency = CSV_LATENCIES.get(column)
            instead = f" (or {latency})" if latency else ""
            raise ValueError(f"{path.name} has no column {column}{instead}, which a {what} has")
    numbers = table[list(columns)].rename(columns=columns).apply(pd.to_numeric, errors="coerce")
    counts = ["input_tokens", "output_tokens"]
    wrong = np.flatnonzero(
        numbers[["arrival_s", *counts]].isna().any(axis=1) | (numbers[counts] < 1).any(axis=1)
    )
    if len(wrong):
        raise ValueError(
            f"{path.name} request {wrong[0]}: arrival and lengths have to be numbers, the latter "
            f"1 or more"
        )
    for column in numbers.columns:
        endless = np.flatnonzero(np.isinf(numbers[column]))
        if len(endless):
            raise ValueError(
                f"{path.name} request {endless[0]}: {column} is infinite; leave it empty if it is "
                f"unknown"
            )
    typed: pd.DataFrame = numbers.astype(dict.fromkeys(counts, np.int64))
    return typed
