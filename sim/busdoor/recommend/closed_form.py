"""What servers carry in closed form: what is hopeless is never run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import carried_rps
from busdoor.recommend.space import Candidate, Server, Setup
from busdoor_workloads import Trace


@dataclass(frozen=True)
class ClosedForms:
    """Closed forms of servers for the requests of a trace, each computed once.

    Parameters
    ----------
    trace : Trace
        A draw of the workload, with a rate.
    """

    trace: Trace
    _known: dict[Any, float] = field(default_factory=dict, init=False, repr=False)

    def carried(self, server: Server, setup: Setup) -> float:
        """Return requests per second of one server; 0 if it takes no such setup."""
        key = server.name, setup.fields
        if key not in self._known:
            try:
                self._known[key] = self._rate(server, setup, self.trace)
            except ValueError:
                self._known[key] = 0.0
        return self._known[key]

    def prefill_share(self, own: Candidate) -> float:
        """Return the share of a server's time that prompts take."""
        prompts = replace(self.trace, output_tokens=np.ones_like(self.trace.output_tokens))
        alone = self._rate(own.server, own.setup, prompts)
        return self.carried(own.server, own.setup) / alone

    def _rate(self, server: Server, setup: Setup, trace: Trace) -> float:
        config = Config.from_table(server.many(1, Setup(setup.fields), 1.0))
        return carried_rps(config, config.policies[0], trace, limits_for(config, [trace]))
