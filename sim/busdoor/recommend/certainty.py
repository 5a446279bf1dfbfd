"""How sure the recommended servers are, the error of the step time counted too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from busdoor.capacity.api import REPLICATIONS, make_study
from busdoor.capacity.confidence.study import believe
from busdoor.capacity.confidence.text import percent
from busdoor.config import Config
from busdoor.recommend.space import Candidate

CONFIDENCE = 0.95  # that `servers` is for, as capacity's --confidence

_TOLERANCE = 0.05  # of the search: a third of the model's error, which it stands beside


def certainty(winner: Candidate, request_rate: float) -> dict[str, Any]:
    """Return how likely servers that share the rate evenly meet the SLO; empty where not known.

    `chance` of the recommended number, `servers` for `CONFIDENCE`, and the sentence `text`. The
    race compares draws of one model; here one server's highest rate is a law of sampling,
    calibration and the model's error, as `busdoor capacity --rate` has it.
    """
    config = Config.from_table(winner._replace(replicas=1).tables)
    if config.cluster is not None:  # prefill apart: a pool alone has no rate of its own
        return {}
    study = make_study(replace(config, replications=REPLICATIONS), tolerance=_TOLERANCE)
    study.run()
    for known in believe(study).values():
        chance = known.chance(request_rate / winner.replicas)
        servers = known.replicas(request_rate, CONFIDENCE, winner.replicas)
        text = (
            f"With the model's error counted ({known.said['model']}), {winner.title} sharing the "
            f"rate evenly meet the SLO with a probability of {percent(chance)}"
        )
        if servers > winner.replicas:
            text += f"; {100 * CONFIDENCE:g} % take {servers} such servers"
        return {"chance": chance, "servers": servers, "text": f"{text}."}
    return {}
