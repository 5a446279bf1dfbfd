"""Predictions of a server's answers under a load, written before that load is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.teacher_forcing import policy_of, serve
from busdoor.catalog import Engine
from busdoor.metrics.saturation import burst_rates
from busdoor.observe.static_batches import simulated_in_batches
from busdoor.policies.offered_load import offered_load
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime
from busdoor.validation.errors import regime, statistics
from busdoor_workloads import Trace

# What a prediction is compared in: what a client sees, and the server's throughput.
COMPARED = (
    *((latency, kind) for latency in ("ttft", "tpot", "e2e") for kind in ("mean", "p50", "p99")),
    ("output", "rate"),
    ("saturated", "rate"),
)
CONFIDENCE_Z = 1.96  # of a normal law, for 95 %


@dataclass(frozen=True)
class ServerModel:
    """What predictions are made with: step time, scheduling, and seconds outside the engine.

    `meta` says how the server schedules (policy_config, num_blocks, block_size, max_model_len,
    lookahead), and `policy` replaces fields of it. `front_end_s` is there and back: HTTP, tokenizer.
    """

    step_time: StepTime
    meta: Mapping[str, Any]
    front_end_s: float = 0.0
    policy: Mapping[str, Any] | None = None

    def predict(self, trace: Trace, static: int | None = None) -> Result:
        """Simulate a trace as the clients of the server will see it.

        Requests reach the engine `front_end_s` after they are due; with `static` in batches of so
        many, as `How.static` sends them.

        >>> from busdoor.step_time.linear import LinearStepTime
        >>> meta = {"policy_config": {"name": "vllm"}, "num_blocks": 99, "block_size": 16,
        ...         "max_model_len": 64}
        >>> model = ServerModel(LinearStepTime(base_s=0.010), meta, front_end_s=0.002)
        >>> trace = Trace(arrival_s=[1.0], input_tokens=[9], output_tokens=[3])
        >>> model.predict(trace).latencies.round(6)[["ttft", "e2e"]].values.tolist()
        [[0.012, 0.032]]
        """
        if static:
            return simulated_in_batches(trace, static, self.predict)
        policy = policy_of(self.meta, trace, self.policy)
        lookahead = int(self.meta.get("lookahead", 0))
        engine = Engine(name="observed", frontend_per_request_s=self.front_end_s)
        return serve(trace, policy, self.step_time, lookahead, engine)

    def load(self, trace: Trace) -> float:
        """Return the rate of a trace over what the server can carry; NaN for a burst."""
        return offered_load(trace, policy_of(self.meta, trace, self.policy), self.step_time)


def prediction_rows(
    model: ServerModel, trace: Trace, name: str, static: int | None = None
) -> pd.DataFrame:
    """Predict a trace: a row per compared quantity, in seconds or tokens per second."""
    simulated = model.predict(trace, static)
    load = model.load(trace)
    return pd.DataFrame(
        {
            "run": name,
            "load": load,
            "regime": regime(load),
            "quantity": ["_".join(key) for key in COMPARED],
            "predicted": _compared(simulated, simulated),
        }
    )


def _compared(client: Result, scheduled: Result) -> list[float]:
    """Return the compared quantities; admissions are those of `scheduled`."""
    rates = burst_rates(scheduled.requests, scheduled.meta)
    found = {**statistics(client), ("saturated", "rate"): rates["output_throughput"]}
    return [float(found.get(key, np.nan)) for key in COMPARED]


def with_measured(
    predicted: pd.DataFrame, measured: Result, engine: Result | None = None
) -> pd.DataFrame:
    """Put what was measured beside the rows of `prediction_rows` for the same trace.

    Adds the columns measured, error (relative), error_ms (of latencies), n (answers) and half_width
    (of the 95 % interval of a measured mean, relative). Without `engine`, what the engine recorded
    of the run, a continuous burst has no saturated rate.
    """
    scheduled = engine if engine is not None and measured.meta.get("streams", True) else measured
    table = predicted.assign(measured=_compared(measured, scheduled))
    table["error"] = table["predicted"] / table["measured"] - 1
    is_latency = ~table["quantity"].str.endswith("rate")
    table["error_ms"] = (1e3 * (table["predicted"] - table["measured"])).where(is_latency)
    latencies = measured.latencies
    table["n"] = len(latencies)
    means = {f"{key}_mean": latencies[key].dropna() for key in ("ttft", "tpot", "e2e")}
    table["half_width"] = [_half_width(means.get(quantity)) for quantity in table["quantity"]]
    return table


def _half_width(values: pd.Series[float] | None) -> float:
    """Half the 95 % interval of a mean, relative to it, with requests taken as independent."""
    if values is None or len(values) < 2:
        return float("nan")
    return float(CONFIDENCE_Z * values.std() / np.sqrt(len(values)) / values.mean())
