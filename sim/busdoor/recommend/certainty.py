"""How sure recommended servers are, the error of the step time counted too."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from busdoor.capacity.api import REPLICATIONS, make_study
from busdoor.capacity.confidence.rates import Belief
from busdoor.capacity.confidence.study import believe
from busdoor.capacity.confidence.text import belief_text
from busdoor.config import Config
from busdoor.metrics.slo import SLO
from busdoor.recommend.space import Candidate
from busdoor.validation.data import ValidationData

CONFIDENCE = 0.95  # that `servers` is for, where no other is asked for

_TOLERANCE = 0.05  # of the search: a third of the model's error, which it stands beside


@dataclass
class Certainty:
    """How likely servers that share a rate evenly meet the SLO.

    The race compares draws of one model; here one server's highest rate (with prefill apart, that
    of all together) is a law of sampling, calibration and the model's error, as `busdoor capacity
    --rate` has it. Each is searched once.

    Parameters
    ----------
    request_rate : float
        To be served.
    confidence : float, optional
        That servers are sized for.
    validation : ValidationData, optional
        Where the model's error was measured.
    pool : ProcessPoolExecutor, optional
        Where it runs.
    """

    request_rate: float
    confidence: float | None = None
    validation: ValidationData | None = None
    pool: ProcessPoolExecutor | None = None
    _known: dict[tuple[Any, ...], Belief | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(
                f"confidence is {self.confidence}; it must be between 0 and 1, as in 0.95"
            )

    def servers(self, own: Candidate) -> int:
        """Return the fewest, from its number on, that the confidence takes; 0 if no number does."""
        known = self._belief(own)
        if known is None:
            return 0
        whole = self.request_rate * own.replicas / _units(own)
        return known.replicas(whole, self.confidence or CONFIDENCE, own.replicas)

    def margin(self, own: Candidate) -> float:
        """Return the rate that has the confidence over the most likely highest rate; 1 without."""
        known = self._belief(own) if self.confidence else None
        if known is None or self.confidence is None:
            return 1.0
        reliable, middle = np.percentile(known.rates, [100 * (1 - self.confidence), 50])
        return float(reliable / middle)

    def to_dict(self, own: Candidate, slo: SLO) -> dict[str, Any]:
        """Return how likely servers meet the SLO; empty where not known.

        `chance` and, by target, the probability that it is `missed`; `half_widths` that each source
        leaves of the highest rate, and the `sources`; `servers` for `confidence`; the sentence
        `text`.
        """
        known = self._belief(own)
        if known is None:
            return {}
        each, wanted = self.request_rate / _units(own), self.confidence or CONFIDENCE
        servers = self.servers(own)
        whose = "all together" if _units(own) == 1 < own.replicas else "one server"
        text = f"{own.title}: {belief_text(known, slo, each, whose)}"
        if servers > own.replicas:
            text += f"; {100 * wanted:g} % take {servers} such servers"
        elif not servers:
            text += f"; no number of them is sure to {100 * wanted:g} %"
        return {
            "chance": known.chance(each),
            "missed": known.missed(each),
            "half_widths": known.half_widths(),
            "sources": dict(known.said),
            "confidence": wanted,
            "servers": servers,
            "text": f"{text}.",
        }

    def _belief(self, own: Candidate) -> Belief | None:
        one = own._replace(replicas=own.replicas // _units(own))
        key = one.title, one.setup.fields, one.setup.num_prefill
        if key not in self._known:
            config = Config.from_table(one.tables)
            study = make_study(replace(config, replications=REPLICATIONS), tolerance=_TOLERANCE)
            study.start(self.pool, None)
            study.run()
            self._known[key] = next(iter(believe(study, self.validation).values()), None)
        return self._known[key]


def _units(own: Candidate) -> int:
    """Return among how many the rate is split: with prefill apart, all servers are one."""
    return 1 if own.setup.num_prefill else own.replicas
