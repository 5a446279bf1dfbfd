"""Which part is to blame for the error of a predicted run."""

from __future__ import annotations

from busdoor.observe.ttft_split import joined
from busdoor.observe.twin.prediction import ServerModel
from busdoor.results.result import Result
from busdoor.validation.error_budget import error_budget


def e2e_budget(
    client: Result, engine: Result, model: ServerModel, predicted_s: float
) -> dict[str, float]:
    """Split the error of a predicted mean E2E latency, in seconds: predicted less measured.

    `client`: that it sent late, which no prediction has; `front end`: there and back; `step time`
    and `host`: what the model errs by in the measured iterations between a request's arrival and
    its answer, as the engine recorded them; `queue and scheduler`: the rest, what these make of the
    queue, and decisions that differ.
    """
    both = joined(client, engine)
    lag_s = float((both["sent_s"] - both["arrival_s"]).mean())
    e2e_s = float((both["finish_s"] - both["arrival_s"]).mean())
    inside_s = float((both["finish_s_engine"] - both["taken_s"]).mean())
    front_end_s = e2e_s - lag_s - inside_s
    shares = error_budget(engine, engine, None, model.step_time)
    true_s = float(engine.latencies["e2e"].mean())
    parts = {
        "client": -lag_s,
        "front end": model.front_end_s - front_end_s,
        "step time": true_s * float(shares["step_model"]),
        "host": true_s * float(shares["host"]),
    }
    return {**parts, "queue and scheduler": predicted_s - e2e_s - sum(parts.values())}
