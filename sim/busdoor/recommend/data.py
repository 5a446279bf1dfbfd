"""A recommendation as data: the table of everything raced, the front, and what was never checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import Any

import pandas as pd

from busdoor.capacity.estimate import Outcome
from busdoor.config import Config
from busdoor.config.energy import hours_per_million_tokens, kwh_per_million_tokens
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE
from busdoor.recommend.command_line import command_line
from busdoor.recommend.race import Entry, Verdict
from busdoor.recommend.space import Place


@dataclass(frozen=True, eq=False)
class RecommendationData:
    """The servers that meet an SLO at the least cost, and what else was tried.

    Parameters
    ----------
    config : Config
        The workload, the model and the engine; of one server of the winner if there is one.
    slo : SLO
        What has to be met.
    request_rate : float
        To be served, requests per second.
    mean_output_tokens : float
        Of a request.
    verdicts : mapping of Place to Verdict
        How the race among the setups of so many servers ended.
    winner, runner_up : Place or None
        The cheapest that meets the SLO, and the cheapest of another server.
    ladder : DataFrame
        By policy on the winner's server, worst first: `replicas`, `gpus` and `cost_per_hour`.
    left_out : sequence of str
        Why a server was not tried.
    num_runs, num_requests : int
        Everything that was simulated.
    complete : bool
        Whether the search ended by itself.
    certainty : mapping
        How sure the winner is with the model's error counted; see `Certainty.to_dict`.
    confidence : float or None
        That the servers are sized for.
    """

    config: Config
    slo: SLO
    request_rate: float
    mean_output_tokens: float
    verdicts: Mapping[Place, Verdict]
    winner: Place | None
    runner_up: Place | None
    ladder: pd.DataFrame
    left_out: Sequence[str] = ()
    num_runs: int = 0
    num_requests: int = 0
    complete: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)
    certainty: Mapping[str, Any] = field(default_factory=dict)
    confidence: float | None = None

    def best(self, place: Place) -> Entry:
        """Return the best setup of so many servers."""
        return self.verdicts[place].best

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per number of servers that was raced, cheapest first, with its best setup.

        `servers`, `gpus`, `cost_per_hour`, `cost_per_million_output_tokens`,
        `kwh_per_million_output_tokens`; `setup`, `router` and `command`; `outcome` and `confidence`
        that it meets the SLO; `slo_used`, the value of the tightest target over its limit;
        `latency_s`, the first target's; `e2e_s`, the mean; `on_front`; and `ties`, setups of the
        same cost that cannot be told from it.
        """
        rows = [
            self._row(place, verdict)
            for place, verdict in sorted(self.verdicts.items())
            if verdict.entries
        ]
        table = pd.DataFrame(rows, columns=list(_COLUMNS))
        table["on_front"] = _front(table)
        return table

    @property
    def winner_row(self) -> pd.Series[Any] | None:
        """The winner's row of the table."""
        if self.winner is None:
            return None
        own = self.table["servers"] == self.best(self.winner).candidate.title
        return self.table[own].iloc[0]

    def _row(self, place: Place, verdict: Verdict) -> dict[str, Any]:
        entry = verdict.best
        candidate, tokens = entry.candidate, self.request_rate * self.mean_output_tokens
        config = Config.from_table(entry.table)
        load = next((one.value for one in entry.readings if one.key == STABLE), nan)
        first = next(one for one in entry.readings if one.key == self.slo.targets[0].key)
        return {
            "servers": candidate.title,
            "gpus": candidate.num_gpus,
            "cost_per_hour": place.cost_per_hour,
            "cost_per_million_output_tokens": place.cost_per_hour
            * hours_per_million_tokens(tokens),
            "kwh_per_million_output_tokens": kwh_per_million_tokens(
                config, load if load == load else self.request_rate / entry.carried_rps, tokens
            ),
            "setup": str(candidate.setup),
            "router": candidate.setup.router if candidate.replicas > 1 else "",
            "command": command_line(candidate),
            "outcome": str(verdict.outcome),
            "confidence": entry.confidence,
            "slo_used": entry.ratio,
            "latency_s": first.value,
            "e2e_s": float(entry.column("e2e_s").mean()),
            "ties": len(self.ties(place)),
        }

    def ties(self, place: Place) -> list[Entry]:
        """Return setups of the same cost that meet the SLO and cannot be told from the best."""
        best, *others = self.verdicts[place].entries
        return [
            one for one in others if one.bursts and one.outcome is Outcome.MEETS and best.ties(one)
        ]

    @property
    def undecided(self) -> list[Place]:
        """Cheaper places than the winner that may meet the SLO too."""
        cost = self.winner.cost_per_hour if self.winner else float("inf")
        return [
            place
            for place, verdict in sorted(self.verdicts.items())
            if verdict.outcome is Outcome.OPEN and place.cost_per_hour < cost
        ]

    @property
    def unchecked(self) -> str:
        """How well the winner's predictions were checked against measurements."""
        if self.winner is None:
            return ""
        return Config.from_table(self.best(self.winner).table).prediction


_COLUMNS = (
    "servers",
    "gpus",
    "cost_per_hour",
    "cost_per_million_output_tokens",
    "kwh_per_million_output_tokens",
    "setup",
    "router",
    "command",
    "outcome",
    "confidence",
    "slo_used",
    "latency_s",
    "e2e_s",
    "ties",
)


def _front(table: pd.DataFrame) -> list[bool]:
    """Return which rows meet the SLO, and no row that costs no more is faster."""
    found, fastest = [], float("inf")
    for cost, latency, outcome in table[["cost_per_hour", "latency_s", "outcome"]].to_numpy():
        same = table[(table["cost_per_hour"] == cost) & (table["outcome"] == Outcome.MEETS)]
        better = outcome == Outcome.MEETS and latency < fastest
        found.append(bool(better and latency <= same["latency_s"].min()))
        fastest = min(fastest, latency) if better else fastest
    return found
