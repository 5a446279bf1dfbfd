"""The real vLLM on a GPU: calibrate on one log, predict the others before they are read, compare.

    python -m benchmarks.gpu.vllm_logs predict LOGS/conv_10.json.gz --traces KIT --out FOLDER
    git add FOLDER && git commit                                  # before the other logs are read
    python -m benchmarks.gpu.vllm_logs compare LOGS --out FOLDER

Logs are those of the kit (gpu/README.md, "When a GPU is at hand"). `predict` reads one of them and
the traces of the others, which are the kit's input. `compare` refuses a folder without predictions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration import Calibration, calibrate
from busdoor.calibration.vllm_log import result_of_log
from busdoor.core.format import as_percent
from busdoor.core.saved import read_csv, write_csv
from busdoor.observe.static_batches import simulated_in_batches
from busdoor.observe.twin.prediction import ServerModel, prediction_rows, with_measured
from busdoor.results.result import Result
from busdoor.validation.errors import step_errors
from busdoor.validation.validate import validate
from busdoor_workloads import Trace
from busdoor_workloads.reading.json_table import read_json

CALIBRATION, PREDICTIONS, COMPARISON = "calibration.toml", "predictions.csv", "comparison.csv"
_NAME = "h100-vllm-llama-3.1-8b"  # that a calibration of the kit's model ships under
# The kit's jobs beside the one at 10/s (run2.sh), as vllm_gpu_run.py takes them; without a budget of
# its own a job has the engine's.
JOBS = (
    "conv_15.csv,for=60,budget=2048",
    "conv_18.csv,for=75,budget=2048",
    "conv_15.csv,for=11.15,gap=1,seqs=32,budget=2048,name=burst_cont32",
    "conv_15.csv,for=11.15,gap=1,mode=static,batch=32,budget=8192,name=burst_static32",
)
# Largest relative errors; source: issue 19, "With a GPU".
BARS = {"e2e_mean": 0.03, "e2e_p99": 0.06, "ttft_mean": 0.06, "step_total": 0.02, "gain": 0.05}
_TTFT_BELOW = 0.9  # of the load, where the bar of the TTFT applies


@dataclass(frozen=True)
class Job:
    """One run of the kit: its file, and the options that decide what is served, and how."""

    file: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, spec: str) -> Job:
        """Read a job as the kit's command has it.

        >>> Job.of("conv_15.csv,gap=1,mode=static,batch=32").name
        'conv_15_static32'
        """
        file, *options = spec.split(",")
        return cls(file, dict(option.split("=", 1) for option in options))

    @property
    def static(self) -> int | None:
        """Requests of a static batch; None in continuous batching."""
        static = self.options.get("mode") == "static"
        return int(self.options.get("batch", 32)) if static else None

    @property
    def name(self) -> str:
        """Name of its log."""
        suffix = f"_static{self.static}" if self.static else ""
        return self.options.get("name", self.file.split(".")[0] + suffix)

    def trace(self, folder: Path, max_model_len: int) -> Trace:
        """Return the requests that the kit sends: too long ones are left out, a burst comes at 0."""
        table = pd.read_csv(folder / self.file).sort_values("arrival_s", kind="stable")
        fits = table["input_tokens"] + table["output_tokens"] <= max_model_len
        table = table[fits & (table["arrival_s"] <= float(self.options.get("for", "inf")))]
        burst = self.options.get("gap", "0") != "0"
        return Trace(
            arrival_s=table["arrival_s"].to_numpy() * (not burst),
            input_tokens=table["input_tokens"].to_numpy(),
            output_tokens=table["output_tokens"].to_numpy(),
            name=self.name,
        )

    def policy(self, engine: Mapping[str, Any]) -> dict[str, Any]:
        """Return the policy of this job on an engine of these settings."""
        given = {"max_num_seqs": "seqs", "max_num_batched_tokens": "budget"}
        own = {key: int(self.options[name]) for key, name in given.items() if name in self.options}
        return {"name": "vllm", **engine, **own}


def read_log(path: Path) -> tuple[Result, Mapping[str, Any]]:
    """Read a log of the kit, with what its `about` tells of device, engine and scheduler.

    vLLM 0.24 admits a prompt only if it fits whole and keeps no watermark, which are the policy's
    own defaults; a log that says otherwise overrides them.
    """
    document = read_json(path)
    about = document.get("about", {})
    notes = {
        "lookahead": int(bool(about.get("async_scheduling"))),
        "graph_sizes": about.get("cudagraph_capture_sizes") or None,
        "gpu": about.get("gpu", "cpu"),
        "engine_version": about.get("vllm", ""),
        **{key: about[key] for key in ("model", "dtype", "started_at") if key in about},
    }
    found = result_of_log(path.name, document, notes)
    given = about.get("scheduler", {})
    for key, name in (("reserve_full_prompt", "scheduler_reserve_full_isl"), ("watermark",) * 2):
        if given.get(name) is not None:
            found.meta["policy_config"][key] = given[name]
    return found, document


class _Kit(ServerModel):
    """The kit's server: in one process, without a front end."""

    def predict(self, trace: Trace, static: int | None = None) -> Result:
        """Simulate a trace; a static batch's rows run until the longest is done, or are full."""
        if not static:
            return super().predict(trace)

        def batch(own: Trace) -> Result:
            most = int(self.meta["max_model_len"]) - own.input_tokens
            tokens = np.minimum(own.output_tokens, most)
            return ServerModel.predict(self, replace(own, output_tokens=tokens))

        return simulated_in_batches(trace, static, batch)


def predict(log: Path, traces: Path, jobs: Sequence[Job], out: Path, name: str = _NAME) -> str:
    """Calibrate on a log, and write what it says of the jobs; return that as text."""
    measured, _ = read_log(log)
    calibration, dropped = _calibrated(measured, log.name.split(".")[0], name)
    out.mkdir(parents=True, exist_ok=True)
    calibration.save(out / CALIBRATION)
    engine = dict(measured.meta["policy_config"])
    tables = []
    for job in jobs:
        meta = {**measured.meta, "policy_config": job.policy(engine)}
        trace = job.trace(traces, measured.meta["max_model_len"])
        model = _Kit(calibration.step_time, meta)
        tables.append(prediction_rows(model, trace, job.name, job.static))
    table = pd.concat(tables, ignore_index=True)
    write_csv(table, out / PREDICTIONS, index=False)
    settings = ", ".join(f"{key} = {value}" for key, value in engine.items())
    return (
        f"terms that the log cannot tell apart, at 0: {', '.join(dropped) or 'none'}\n"
        f"policy: {settings}; lookahead {measured.meta['lookahead']}\n{table.to_string()}\n"
        f"Commit {out} before the other logs are read."
    )


def _calibrated(measured: Result, run: str, name: str) -> tuple[Calibration, list[str]]:
    """Fit a step time, without the terms that the fit says it cannot identify; return these too."""
    dropped: list[str] = []
    while True:
        try:
            return calibrate([measured], [run], name=name, without=dropped), dropped
        except ValueError as error:
            term = re.search(r"--without (\w+)$", str(error))
            if term is None:
                raise
            dropped.append(term[1])


def compare(logs: Path, out: Path) -> str:
    """Put the logs beside the predictions in a folder; write and return what came out."""
    if not (out / PREDICTIONS).exists():
        raise ValueError(f"{out} has no {PREDICTIONS}; run predict first, and commit what it wrote")
    predicted, calibration = read_csv(out / PREDICTIONS), Calibration.load(out / CALIBRATION)
    tables, lines = [], []
    for name, own in predicted.groupby("run", sort=False):
        measured, document = read_log(logs / f"{name}.json.gz")
        total = step_errors(measured, calibration.step_time).total
        lines.append(
            f"{name}: step time in all {_against('step_total', total)}{_alike(measured, document, calibration)}"
        )
        seen = _static_view(measured, document) if document["mode"] == "static" else measured
        tables.append(with_measured(own, seen))
    table = pd.concat(tables, ignore_index=True)
    write_csv(table, out / COMPARISON, index=False)
    return "\n".join([*lines, *_judged(table), *_gain(table)])


def _alike(measured: Result, document: Mapping[str, Any], calibration: Calibration) -> str:
    """Return the share of batches that our scheduler repeats; static batches are the client's."""
    if document["mode"] == "static":
        return ""
    [run] = validate([measured], calibration.step_time, ["log"]).runs
    return f"; given the durations, {100 * run.agreement['played']:.2f} % of the batches repeat"


def _static_view(measured: Result, document: Mapping[str, Any]) -> Result:
    """Return what clients of a static server see: their own answer, at their batch's end."""
    requests = measured.requests.copy()
    requests["output_tokens"] = document["answers"]
    for start_s, end_s, rows in document["batches"]:
        requests.loc[rows, "first_scheduled_s"] = start_s
        requests.loc[rows, ["first_token_s", "finish_s"]] = end_s
    meta = {**measured.meta, "streams": False, "whole_batch": True}
    return Result(requests, measured.iterations[:0], measured.stays[:0], meta)


def _judged(table: pd.DataFrame) -> Iterator[str]:
    for row in table.to_dict("records"):
        quantity, error = str(row["quantity"]), float(row["error"])
        if quantity not in BARS or not isfinite(error):
            continue
        free = quantity == "ttft_mean" and not row["load"] < _TTFT_BELOW
        said = as_percent(error) if free else _against(quantity, error)
        yield f"{row['run']} (load {row['load']:.2f}): {quantity} {said}, {row['error_ms']:+.1f} ms, n {row['n']}"


def _gain(table: pd.DataFrame) -> Iterator[str]:
    """Yield the gain of each continuous burst over each static one."""
    rates = (
        table[table["quantity"] == "saturated_rate"]
        .dropna(subset=["predicted", "measured"])
        .set_index("run")
    )
    static = [name for name in rates.index if "static" in name]
    for one in rates.index.difference(static):
        for other in static:
            gains = (
                rates.loc[one, ["predicted", "measured"]]
                / rates.loc[other, ["predicted", "measured"]]
            )
            error = float(gains["predicted"] / gains["measured"] - 1)
            yield (
                f"gain of {one} over {other}: predicted {gains['predicted']:.3f}, measured "
                f"{gains['measured']:.3f}, {_against('gain', error)}"
            )


def _against(quantity: str, error: float) -> str:
    bar = BARS[quantity]
    return f"{as_percent(error)} {'✓' if abs(error) <= bar else '✗'} (≤ {100 * bar:g} %)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, or compare, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.vllm_logs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True)
    first, second = steps.add_parser("predict"), steps.add_parser("compare")
    first.add_argument("log", type=Path, help="the log to calibrate on")
    first.add_argument("--traces", type=Path, required=True, help="folder of the kit's traces")
    first.add_argument("--job", action="append", help="a job as in run2.sh; by default its four")
    first.add_argument("--name", default=_NAME, help="of the calibration")
    second.add_argument("logs", type=Path, help="folder of the logs")
    for step in (first, second):
        step.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.step == "predict":
        jobs = [Job.of(spec) for spec in given.job or JOBS]
        print(predict(given.log, given.traces, jobs, given.out, given.name))
    else:
        print(compare(given.logs, given.out))


if __name__ == "__main__":
    main()
