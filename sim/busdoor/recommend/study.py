"""The search: the cheapest number of servers first, until one meets the SLO, and a runner-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf
from typing import Any

from busdoor.capacity.estimate import Outcome
from busdoor.config import Config
from busdoor.config.recommend import RecommendTable
from busdoor.core.progress import Report
from busdoor.recommend.closed_form import ClosedForms
from busdoor.recommend.measure import Job
from busdoor.recommend.race import STAGES, Entry, Stage, Verdict, race
from busdoor.recommend.records import Records
from busdoor.recommend.space import Candidate, Place, Server, Setup
from busdoor.sweep.key import point_key, table_key
from busdoor_workloads import Trace

_SLACK = 1.1  # times its closed form, beyond which no server is hoped to carry a rate
_STEP = 0.02  # of the servers: by so many more, where there are many
_FRONT = (1.25, 1.5, 2.0)  # times the least cost: where the front is looked at
_DEAREST = 3.0  # times the least cost: no runner-up beyond
_AGAIN = (Stage(1), Stage(3, most=3), *STAGES[2:])  # of more of a server that was raced
_BURST = 4  # times the first runs' requests: more tell little more of the saturated rate
REPORTED = 0.95  # of the progress, at most: how long the rest takes is not known
_SECOND = _AGAIN[:-1]  # for the runner-up: nothing dearer has to be known so well


class OutOfTimeError(Exception):
    """The budget is used up."""


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
    request_rate, num_requests : float and int
        To be served; of the first runs.
    records : Records
        What runs say.
    deadline_s, report : float and callable
        By `time.monotonic`; called with progress.
    fixed : bool
        Whether the trace is a file, which has no longer draws.
    size : callable, optional
        Returns how many servers, at least a candidate's, a confidence takes; 0 if no number does.

    Attributes
    ----------
    verdicts : dict
        By place, how its race ended.
    met : list of Place
        By server the cheapest that meets the SLO, and is sized; cheapest first.
    unsure : list of str
        Servers that meet it, of which no number has the confidence.
    """

    servers: Sequence[Server]
    axes: RecommendTable
    trace: Trace
    request_rate: float
    num_requests: int
    records: Records
    deadline_s: float = inf
    report: Report = lambda share, what: None
    fixed: bool = False
    size: Callable[[Candidate], int] | None = None
    verdicts: dict[Place, Verdict] = field(default_factory=dict, init=False)
    met: list[Place] = field(default_factory=list, init=False)
    unsure: list[str] = field(default_factory=list, init=False)
    finished: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._forms = ClosedForms(self.trace)

    @property
    def winner(self) -> Place | None:
        """The cheapest that meets the SLO."""
        return self.met[0] if self.met else None

    @property
    def runner_up(self) -> Place | None:
        """The cheapest of another server."""
        return self.met[1] if len(self.met) > 1 else None

    def run(self) -> None:
        """Search until the winner, the runner-up and the front are known, or time is up."""
        try:
            self._search()
            self._front()
            self.finished = True
        except OutOfTimeError:
            pass

    def _search(self) -> None:
        places: list[Place] = []
        for order in range(len(self.servers)):
            self._push(places, order, 1)
        done: set[int] = set()  # servers
        while places and not self._settled(place := heappop(places)):
            if place.order in done:
                continue
            if self._race(place).outcome is Outcome.MEETS:
                done.add(place.order)
                self._meets(place)
            else:
                step = max(1, int(_STEP * place.replicas))
                self._push(places, place.order, place.replicas + step)

    def _settled(self, place: Place) -> bool:
        """Whether a place, and with it all that follow, cost too much to matter."""
        winner, second = self.winner, self.runner_up
        if winner and place.cost_per_hour > _DEAREST * winner.cost_per_hour:
            return True
        return bool(second and place.cost_per_hour >= second.cost_per_hour)

    def _meets(self, place: Place) -> None:
        """Record that a place meets the SLO, with as many servers as the confidence takes."""
        self.met.append(place)  # so that it is known if the rest is interrupted
        if self.size is not None:
            own = self.verdicts[place].best.candidate
            self.report(REPORTED, f"{own.title}: how sure it is")
            number = self.size(own)
            self.met.remove(place)
            if 0 < number <= self.axes.max_replicas:
                self.met.append(self._enlarged(own, place.order, number))
            else:
                self.unsure.append(own.server.name)
        self.met.sort()

    def _enlarged(self, own: Candidate, order: int, replicas: int) -> Place:
        """Race so many of a server with its best setup."""
        place = self._place(order, replicas)
        if place not in self.verdicts:
            prefill = round(own.setup.num_prefill * replicas / own.replicas)
            setup = own.setup._replace(num_prefill=prefill)
            entry = self._entry(own._replace(replicas=replicas, setup=setup))
            self.verdicts[place] = race([entry], self._stage, lambda one: (), STAGES[2:])
        return place

    def _front(self) -> None:
        """Look at what more servers of the two best would bring: a few runs of the best setup."""
        for place in filter(None, (self.winner, self.runner_up)):
            own = self.verdicts[place].best.candidate
            for factor in () if own.setup.num_prefill else _FRONT:
                entry = self._entry(own._replace(replicas=ceil(factor * own.replicas)))
                more = self._place(place.order, entry.candidate.replicas)
                if more not in self.verdicts:
                    self._stage([entry], STAGES[1])
                    self.verdicts[more] = Verdict((entry,), entry.outcome)

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
        self.records.of([job for jobs in wanted.values() for job in jobs])
        for (entry, burst), jobs in wanted.items():
            records = self.records.of(jobs)
            entry.num_requests = length
            if not burst:
                entry.records = records
            elif records:
                entry.bursts = [record for record in records if not record.error]
        titles = ", ".join(dict.fromkeys(entry.candidate.title for entry in entries))
        runs = self.records.num_runs
        self.report(min(REPORTED, runs / (runs + 500)), f"{titles}: {runs:,} runs")

    def _job(self, entry: Entry, length: int, replication: int, burst: bool) -> Job:
        job: dict[str, Any] = {
            "table": entry.table,
            "request_rate": self.request_rate,
            "num_requests": length,
            "replication": replication,
            "burst": burst,
        }
        return table_key(job | {"table": entry.key}), job
