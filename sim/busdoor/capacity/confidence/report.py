"""The uncertainty of a study's answers: computed, and in sentences."""

from __future__ import annotations

from typing import Any

from busdoor.capacity.api import make_study, with_slo
from busdoor.capacity.confidence.study import believe, what_next
from busdoor.capacity.confidence.text import belief_line, next_line, sized_line, to_json
from busdoor.capacity.data import CapacityData
from busdoor.capacity.several import Studies
from busdoor.capacity.study import Study
from busdoor.config import Config
from busdoor.validation.data import ValidationData

_ROUGH = 0.1  # tolerance of a search that only compares measurements


def uncertainty(
    study: Study | Studies,
    found: CapacityData,
    request_rate: float | None = None,
    *,
    confidence: float | None = None,
    validation: ValidationData | None = None,
    next_too: bool = False,
) -> dict[str, Any]:
    """Return how sure each answer of a study is: as numbers, and in sentences.

    Parameters
    ----------
    study : Study or Studies
        That has run.
    found : CapacityData
        Its results.
    request_rate : float, optional
        To be served: the probability that the planned servers meet the SLO is for it.
    confidence : float, optional
        Also say how many servers that probability takes; needs the rate.
    validation : ValidationData, optional
        Where the model's error was measured.
    next_too : bool
        Also say which measurement would narrow the answers most.

    Raises
    ------
    ValueError
        If a confidence is given without a rate, or is no share.
    """
    if confidence is not None and not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it has to be between 0 and 1, as in 0.95")
    if confidence is not None and request_rate is None:
        raise ValueError("confidence is of servers for a rate; give the rate, or leave it out")
    beliefs = believe(study, validation)
    servers = None if request_rate is None else found.plan(request_rate)["replicas"]
    lines = []
    for name, known in beliefs.items():
        number = float("nan") if servers is None else float(servers[name])
        lines.append(belief_line(name, known, found.slo, number, request_rate))
        if confidence is not None and request_rate is not None:
            lines.append(sized_line(name, known, request_rate, confidence, number))
    if next_too:
        lines += _next_lines(study, beliefs)
    return to_json(beliefs, lines)


def measure_next(config: Config, num_requests: int) -> list[str]:
    """Return which measurement narrows each policy's highest rate most, in sentences.

    Parameters
    ----------
    config : Config
        The server; without an SLO its model's default.
    num_requests : int
        Of each run of the search, which is a rough one.
    """
    settled = with_slo(config)
    study = make_study(settled, num_requests=num_requests, tolerance=_ROUGH, max_doublings=1)
    study.run()
    lines = _next_lines(study, believe(study))
    unmet = [f"{own.policy}: {own.reason}" for own in study.answers if not own.low > 0]
    return [f"For {settled.slo}, {line}" for line in lines + unmet]


def _next_lines(study: Study | Studies, beliefs: dict[str, Any]) -> list[str]:
    studies = study.studies if isinstance(study, Studies) else [study]
    owners = [one for one in studies for _ in one.answers]
    lines = []
    for answer, one in zip(study.answers, owners, strict=True):
        if answer.policy in beliefs and answer.table is not None:
            known = beliefs[answer.policy]
            table = what_next(one, known, answer.table, answer.saturated_rps)
            lines.append(next_line(table, answer.policy))
    return lines
