"""A study that recommends: its tables checked, its servers listed, ready to run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor.capacity.api import with_slo
from busdoor.capacity.draws import unit_rate
from busdoor.catalog import gpu as find_gpu
from busdoor.catalog import gpu_names
from busdoor.config import Config
from busdoor.config.limits import limits_for, servable
from busdoor.config.recommend import parse_recommend
from busdoor.core.progress import Report
from busdoor.core.toml import Document
from busdoor.core.units import parse_seconds
from busdoor.recommend.certainty import Certainty
from busdoor.recommend.executors import executor
from busdoor.recommend.folder import claim, write
from busdoor.recommend.ladder import ladder
from busdoor.recommend.records import Records
from busdoor.recommend.result import Recommendation
from busdoor.recommend.space import Server, servers
from busdoor.recommend.study import REPORTED, Search
from busdoor.simulator.describe import versions
from busdoor.sweep.executors import require
from busdoor.sweep.key import table_key
from busdoor.sweep.store import Store
from busdoor.validation.data import ValidationData
from busdoor_workloads import Trace

NUM_REQUESTS = 1000  # of the first runs, or so many as come in a minute, if these are more
_SECONDS = 60
_MOST_REQUESTS = 10_000
_DRAWS = 8  # from which the longest request is known


class Recommender:
    """A study that is checked and ready to run.

    Parameters
    ----------
    document : Document
        Tables of a configuration, and [recommend].
    gpus : sequence
        As in `recommend`.
    request_rate : float
        To be served.
    budget : float or str, optional
        Seconds, or a time; by default that of [recommend].
    num_requests : int, optional
        Of the first runs.
    confidence : float, optional
        That the servers are sized for; by default that of [recommend].
    validation : ValidationData, optional
        Where the model's error was measured.
    """

    def __init__(
        self,
        document: Document,
        gpus: Sequence[str | Mapping[str, Any]],
        request_rate: float,
        budget: float | str | None = None,
        num_requests: int | None = None,
        confidence: float | None = None,
        validation: ValidationData | None = None,
    ) -> None:
        data = dict(document.data)
        self.axes = parse_recommend(data.pop("recommend", {}))
        if "cluster" in data:
            raise ValueError("[cluster]: recommend chooses the servers itself; leave the table out")
        data.setdefault("policy", [{"name": "vllm"}])
        if not (np.isfinite(request_rate) and request_rate > 0):
            raise ValueError(f"rate is {request_rate}; it must be a number of requests/s above 0")
        self.request_rate = request_rate
        wanted = self.axes.confidence if confidence is None else confidence
        self.sure = Certainty(request_rate, wanted, validation)
        self.interrupted = False
        usual = int(min(max(NUM_REQUESTS, _SECONDS * request_rate), _MOST_REQUESTS))
        self.num_requests = num_requests or usual
        self.budget_s = self.axes.budget or inf if budget is None else parse_seconds(budget)
        named = gpus or self.axes.gpu
        cards = [dict(one) if isinstance(one, Mapping) else {"name": one} for one in named]
        cards = [_priced(card) for card in cards or _all_priced()]
        data["gpu"] = {key: value for key, value in data.get("gpu", {}).items() if key != "name"}
        document = Document(data, document.file, document.lines)
        self.config, self.trace, limit = self._draw(document, cards)
        data["kv"] = {"max_model_len": limit, **data.get("kv", {})}
        data["slo"] = self.config.slo.to_dict()
        found = servers(document, cards, self.axes)
        self.servers = [one for one in found if isinstance(one, Server)]
        self.left_out = [one for one in found if isinstance(one, str)]
        if not self.servers:
            raise ValueError(f"no server can hold the model: {self.left_out[0]}")
        self.key = table_key(
            {"servers": [one.config.to_dict() for one in self.servers], "rate": request_rate}
            | {"axes": repr(replace(self.axes, budget=None, gpu=(), confidence=None))}
        )

    def _draw(
        self, document: Document, cards: Sequence[Mapping[str, Any]]
    ) -> tuple[Config, Trace, int]:
        """Return the configuration, a draw at one request per second, and the longest request."""
        config = _first_that_fits(document.data, cards, self.axes.tp)
        fixed = config.workload.path is not None
        self.fixed = fixed
        unit = unit_rate(config, None if fixed else self.num_requests).workload
        traces = [servable(config, unit.trace(config.seed, n)) for n in range(_DRAWS)]
        if traces[0].concurrency:
            raise ValueError(f"{traces[0].name} is a closed loop, which has no rate to serve")
        if fixed:
            self.num_requests = min(self.num_requests, len(traces[0]))
        return config, traces[0], limits_for(config, traces).kv.max_model_len

    def run(
        self,
        folder: Path,
        jobs: int,
        cluster: str | None,
        report: Report | None,
        overwrite: bool,
        with_ladder: bool = True,
    ) -> Recommendation:
        """Run until the answer is known, time is up or Ctrl-C; write the folder, return what is."""
        require("pyarrow")
        claim(folder, self.key, overwrite)
        search = Search(
            self.servers,
            self.axes,
            self.trace,
            self.request_rate,
            self.num_requests,
            Records(lambda batches: (), Store(folder / "points")),
            time.monotonic() + self.budget_s,
            report or (lambda share, what: None),
            self.fixed,
            self.sure.servers if self.sure.confidence else None,
        )
        more: dict[str, Any] = {}
        try:
            with executor(jobs, cluster) as workers:
                search.records.execute, self.sure.pool = workers
                search.run()
                if search.winner and (search.finished or self.sure.confidence):
                    self._add(search, with_ladder, more)
        except KeyboardInterrupt:
            self.interrupted = True
        search.report(1.0, "done")
        found = self._result(search, more)
        write(found, folder, self.key)
        return found

    def _add(self, search: Search, with_ladder: bool, more: dict[str, Any]) -> None:
        """Add how sure the winner is, and the ladder, where there was time for them."""
        best = search.verdicts[search.met[0]]
        own = best.best.candidate
        if with_ladder or self.sure.confidence:
            search.report(REPORTED, f"{own.title}: how sure it is")
            more["certainty"] = self.sure.to_dict(own, self.config.slo)
        if with_ladder and search.finished:
            search.report(REPORTED, f"{own.title}: what other policies need")
            more["ladder"] = ladder(best, self.sure)

    def _result(self, search: Search, more: Mapping[str, Any]) -> Recommendation:
        winner = search.winner
        config = self.servers[winner.order].config if winner else self.config
        none = pd.DataFrame(columns=["replicas", "gpus", "cost_per_hour", "reason"], dtype=float)
        unsure = [f"{name}, of which no number is sure enough" for name in search.unsure]
        return Recommendation(
            config,
            self.config.slo,
            self.request_rate,
            float(self.trace.output_tokens.mean()),
            search.verdicts,
            winner,
            search.runner_up,
            more.get("ladder", none).rename_axis("policy"),
            [*self.left_out, *unsure],
            search.records.num_runs,
            search.records.num_requests,
            complete=search.finished,
            versions=versions(),
            certainty=more.get("certainty", {}),
            confidence=self.sure.confidence,
        )


def _first_that_fits(
    data: Mapping[str, Any], cards: Sequence[Mapping[str, Any]], tps: Sequence[int]
) -> Config:
    """Return the configuration on the first server that holds the model; raise the last error."""
    wrong = ValueError("no GPU is given")
    for card in cards:
        for tp in tps:
            try:
                own = {**data, "gpu": {**data.get("gpu", {}), "tp": tp, **card}}
                return with_slo(Config.from_table(own))
            except ValueError as error:
                wrong = error
    raise wrong


def _all_priced() -> list[dict[str, Any]]:
    """Return the catalogue's GPUs that have a price."""
    return [{"name": name} for name in gpu_names() if find_gpu(name).price_per_hour]


def _priced(card: dict[str, Any]) -> dict[str, Any]:
    """Return a table [gpu] with its price, by default the catalogue's."""
    price = card.get("price_per_hour") or find_gpu(card["name"]).price_per_hour
    if not price:
        raise ValueError(
            f"{card['name']} has no price in the catalogue; give it one, as in --gpu "
            f"{card['name']},price_per_hour=2.5"
        )
    return {**card, "price_per_hour": price}
