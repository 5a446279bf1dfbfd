"""The search: the cheapest number of servers first, until one meets the SLO, and a runner-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf
from typing import Any, NamedTuple

from busdoor.capacity.estimate import Outcome
from busdoor.comparison.experiment import Report
from busdoor.config import Config
from busdoor.config.recommend import RecommendTable
from busdoor.recommend.closed_form import ClosedForms
from busdoor.recommend.measure import Job
from busdoor.recommend.race import STAGES, Entry, Stage, Verdict, race
from busdoor.recommend.space import Candidate, Server, Setup
from busdoor.sweep.key import point_key, table_key
from busdoor.sweep.store import Store
from busdoor.sweep.task import Record
from busdoor_workloads import Trace

_SLACK = 1.1  # times its closed form, beyond which no server is hoped to carry a rate
_STEP = 0.02  # of the servers: by so many more, where there are many
_FRONT = (1.25, 1.5, 2.0)  # times the least cost: where the front is looked at
_DEAREST = 3.0  # times the least cost: no runner-up beyond
_AGAIN = (Stage(1), Stage(3, most=3), *STAGES[2:])  # of more of a server that was raced
_BURST = 4  # times the first runs' requests: more tell little more of the saturated rate
_SECOND = _AGAIN[:-1]  # for the runner-up: nothing dearer has to be known so well


class OutOfTimeError(Exception):
    """The budget is used up."""


class Place(NamedTuple):
    """So many of a server, and what they cost; places are tried in this order."""

    cost_per_hour: float
    order: int
    replicas: int


@dataclass
class Search:
    """A search that runs; what it knows can be read at any time.

    Parameters
    ----------
    servers : sequence of Server
        To choose from.
    axes : RecommendTable
        Their settings.
    trace : Trace
        A draw of the workload, at one request per second.
    request_rate : float
        To be served.
    num_requests : int
        Of the first runs.
    execute : callable
        Makes runs; yields lists of records as they are done.
    store : Store
        Keeps them.
    deadline_s : float
        By `time.monotonic`.
    report : callable
        Called with progress.
    fixed : bool
        Whether the trace is a file, which has no longer draws.

    Attributes
    ----------
    verdicts : dict
        By place, how its race ended.
    winner, runner_up : Place or None
        The cheapest that meets the SLO, and the cheapest of another server.
    num_runs, num_requests_run : int
        Everything that was simulated, kept runs of an earlier study included.
    """

    servers: Sequence[Server]
    axes: RecommendTable
    trace: Trace
    request_rate: float
    num_requests: int
    execute: Callable[[Iterable[list[Job]]], Iterable[list[Record]]]
    store: Store
    deadline_s: float = inf
    report: Report = lambda share, what: None
    fixed: bool = False
    verdicts: dict[Place, Verdict] = field(default_factory=dict, init=False)
    winner: Place | None = field(default=None, init=False)
    runner_up: Place | None = field(default=None, init=False)
    finished: bool = field(default=False, init=False)
    num_runs: int = field(default=0, init=False)
    num_requests_run: int = field(default=0, init=False)
    _known: dict[str, Record] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._forms = ClosedForms(self.trace)

    def run(self) -> None:
        """Search until the winner, the runner-up and the front are known, or time is up."""
        try:
            self._search()
            self._front()
            self.finished = True
        except OutOfTimeError:
            pass
        self.report(1.0, "done")

    def _search(self) -> None:
        places: list[Place] = []
        for order in range(len(self.servers)):
            self._push(places, order, 1)
        while places:
            place = heappop(places)
            winner = self.winner
            if winner and place.cost_per_hour > _DEAREST * winner.cost_per_hour:
                return
            if winner and place.order == winner.order:
                continue
            verdict = self._race(place)
            if verdict.outcome is not Outcome.MEETS:
                step = max(1, int(_STEP * place.replicas))
                self._push(places, place.order, place.replicas + step)
            elif winner:
                self.runner_up = place
                return
            else:
                self.winner = place

    def _front(self) -> None:
        """Look at what more servers of the two best would bring: a few runs of the best setup."""
        for own in filter(None, (self.winner, self.runner_up)):
            setup = self.verdicts[own].best.candidate.setup
            for factor in _FRONT:
                replicas = ceil(factor * own.replicas)
                place = self._place(own.order, replicas)
                if place not in self.verdicts and not setup.num_prefill:
                    entry = self._entry(Candidate(self.servers[own.order], replicas, setup))
                    self._stage([entry], STAGES[1])
                    self.verdicts[place] = Verdict((entry,), entry.outcome)

    def _place(self, order: int, replicas: int) -> Place:
        return Place(replicas * self.servers[order].price_per_hour, order, replicas)

    def _push(self, places: list[Place], order: int, replicas: int) -> None:
        """Add the next number of servers that might carry the rate, in closed form."""
        server = self.servers[order]
        alone_rps = max(self._forms.carried(server, setup) for setup in self._setups(server))
        if not alone_rps:
            return
        replicas = max(replicas, ceil(self.request_rate / (_SLACK * alone_rps)))
        if replicas <= self.axes.max_replicas:
            heappush(places, self._place(order, replicas))

    def _setups(self, server: Server) -> list[Setup]:
        return list(server.setups(self.axes, self.trace.hash_ids is not None))

    def _race(self, place: Place) -> Verdict:
        """Race the setups; of a dearer place only those that did best before."""
        server = self.servers[place.order]
        before = [own for own in self.verdicts if own.order == place.order]
        stages = _SECOND if self.winner else _AGAIN if before else STAGES
        setups = self._setups(server)
        if before:
            last = self.verdicts[max(before, key=lambda own: own.replicas)]
            ranked = [one.candidate.setup for one in last.entries[: STAGES[1].most]]
            setups = list(
                dict.fromkeys([*(own for own in ranked if not own.num_prefill), setups[0]])
            )
        entries = [
            self._entry(Candidate(server, place.replicas, setup, self.axes.link_bytes_per_s))
            for setup in setups
            if self._forms.carried(server, setup) * place.replicas * _SLACK > self.request_rate
        ]
        verdict = race(entries, self._stage, self._variants, stages)
        self.verdicts[place] = verdict
        return verdict

    def _entry(self, candidate: Candidate) -> Entry:
        slo = candidate.server.config.slo
        carried = candidate.replicas * self._forms.carried(candidate.server, candidate.setup)
        table = Config.from_table(candidate.tables).to_dict()
        return Entry(candidate, slo, self.request_rate, carried, table, point_key(table))

    def _variants(self, entry: Entry) -> Iterable[Entry]:
        """Return the entry behind other routers, and with prefill apart where token times count."""
        own = entry.candidate
        if own.replicas == 1:
            return
        for router in self.axes.router:
            if router != own.setup.router:
                yield self._entry(own._replace(setup=own.setup._replace(router=router)))
        slo = own.server.config.slo
        if self.axes.disaggregated and slo.needs_tokens:
            share = self._forms.prefill_share(own)
            number = min(max(1, round(share * own.replicas)), own.replicas - 1)
            yield self._entry(own._replace(setup=own.setup._replace(num_prefill=number)))

    def _stage(self, entries: Sequence[Entry], stage: Stage) -> None:
        """Make the runs of a stage that are not known yet."""
        if time.monotonic() > self.deadline_s:
            raise OutOfTimeError
        length = self.num_requests * stage.times
        if self.fixed:
            length = min(length, len(self.trace))
        most = _BURST * self.num_requests
        wanted = {
            (entry, burst): [
                self._job(entry, min(length, most) if burst else length, replication, burst)
                for replication in range(count)
            ]
            for entry in entries
            for burst, count in ((False, stage.replications), (True, stage.bursts))
        }
        self._make([job for jobs in wanted.values() for job in jobs])
        for (entry, burst), jobs in wanted.items():
            records = [self._known[key] for key, _ in jobs]
            entry.num_requests = length
            if not burst:
                entry.records = records
            elif records:
                entry.bursts = [record for record in records if not record.error]
        titles = ", ".join(dict.fromkeys(entry.candidate.title for entry in entries))
        share = min(0.95, self.num_runs / (self.num_runs + 500))
        self.report(share, f"{titles}: {self.num_runs:,} runs")

    def _job(self, entry: Entry, length: int, replication: int, burst: bool) -> Job:
        job: dict[str, Any] = {
            "table": entry.table,
            "request_rate": self.request_rate,
            "num_requests": length,
            "replication": replication,
            "burst": burst,
        }
        return table_key(job | {"table": entry.key}), job

    def _make(self, jobs: Sequence[Job]) -> None:
        todo = {key: job for key, job in jobs if key not in self._known}
        kept = self.store.read_all(todo)
        self._count(kept.values(), todo)
        batches = [[(key, job)] for key, job in todo.items() if key not in kept]
        for records in self.execute(batches) if batches else ():
            for record in records:
                self.store.write(record)
            self._count(records, todo)

    def _count(self, records: Iterable[Record], jobs: Mapping[str, Mapping[str, Any]]) -> None:
        for record in records:
            self._known[record.key] = record
            self.num_runs += 1
            self.num_requests_run += jobs[record.key]["num_requests"]
