"""The probability that the GPUs of a comparison's row meet the SLO, its three sources counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np
import pandas as pd

from busdoor.comparison.rescaled import SAMPLES, SOURCES, Rescaled, half_width, log_ratios
from busdoor.comparison.sources import ModelError, model_error, step_time_draws
from busdoor.config import Config, PolicyTable
from busdoor.config.limits import Limits, servable
from busdoor.config.run import run
from busdoor.core.arrays import Floats
from busdoor.core.progress import Report
from busdoor.metrics.slo_target import STABLE
from busdoor.results.slo_shares import slo_ratios
from busdoor.step_time import StepTime
from busdoor.validation.data import ValidationData
from busdoor_workloads import Trace

_FACTORS = (0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.6)  # of the rate: as far as a model's error reaches
_PAIRED = 2  # replications at the other factors: on the same draws only what differs shows
_FAR = 100.0  # a logarithm that Student's t of two replications may pass: over 1e43 times a limit
_DRAWS = 12  # of the calibration: the law between them is taken as it is


@dataclass(frozen=True)
class Likelihood:
    """What computes a row's chances.

    Parameters
    ----------
    server : Config
        One server, with its SLO.
    limits : Limits
        For all policies.
    traces : sequence of Trace
        The replications, at the rate of all servers.
    validation : ValidationData, optional
        Where the model's error was measured.
    """

    server: Config
    limits: Limits
    traces: Sequence[Trace]
    validation: ValidationData | None = None

    def row(self, policy: PolicyTable, servers: float, loads: Floats) -> dict[str, float | str]:
        """Return how likely so many servers meet the SLO with a policy.

        `loads`, by replication, are of each server. The row has `chance`; `missed_TARGET`, the
        probability that a target is missed; and by source `half_width_SOURCE`, what it alone leaves
        of how much of the SLO is used, and `source_SOURCE`, what says so.
        """

        def ratios(trace: Trace, factor: float, step_time: StepTime) -> dict[str, float]:
            config = replace(self.server, step_time=step_time)
            slower = trace.scale_time(servers / factor)
            gaps = config.slo.needs_gaps
            done = run(config, policy, slower, self.limits, iterations=gaps)
            return log_ratios(slo_ratios(done, config.slo))

        own, traces = self.server.step_time, [servable(self.server, one) for one in self.traces]
        rows = [ratios(trace, 1.0, own) for trace in traces]
        curve = Rescaled.of(
            _FACTORS,
            [
                _mean([ratios(one, factor, own) for one in traces[:_PAIRED]])
                if factor != 1.0
                else _mean(rows[:_PAIRED])
                for factor in _FACTORS
            ],
        )
        models, said = step_time_draws(self.server, _DRAWS)
        drawn = curve.scales(rows[0], [ratios(traces[0], 1.0, model) for model in models])
        error = model_error(self.server, float(loads.mean()), self.validation)
        table = pd.DataFrame(rows).assign(**{STABLE: np.log(loads)})
        law = _Law(curve, table, drawn, error, self.server.seed)
        sources = (f"{len(rows)} replications", said, error.source)
        return law.row() | {f"source_{key}": own for key, own in zip(SOURCES, sources, strict=True)}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


@dataclass(frozen=True, eq=False)
class _Law:
    """Samples of each target's value over its limit.

    `table` has its logarithm by replication, and that of the load; `drawn` the scales that draws of
    the calibration amount to.
    """

    curve: Rescaled
    table: pd.DataFrame
    drawn: Mapping[str, Floats]
    error: ModelError
    seed: int

    def row(self) -> dict[str, float | str]:
        """Return the chances and half widths of `Likelihood.row`."""
        rng = np.random.default_rng(self.seed)
        luck = rng.standard_t(len(self.table) - 1, SAMPLES)  # Student's t, over the replications
        model = rng.normal(0.0, self.error.sd, SAMPLES)
        number = rng.integers(0, len(next(iter(self.drawn.values()))), SAMPLES)
        drawn = {key: own[number] for key, own in self.drawn.items()}
        none = dict.fromkeys(drawn, np.zeros(SAMPLES))
        used = self._used(luck, drawn, model)
        alone = (
            self._used(luck, none, 0 * model),
            self._used(0 * luck, drawn, 0 * model),
            self._used(0 * luck, none, model),
        )
        found: dict[str, float | str] = {"chance": float((np.max([*used.values()], 0) <= 0).mean())}
        found |= {f"missed_{key}": float((own > 0).mean()) for key, own in used.items()}
        for name, own in zip(SOURCES, alone, strict=True):
            tightest = max(own, key=lambda key: float(np.median(own[key])))
            in_reach = np.clip(own[tightest], -_FAR, _FAR)
            found[f"half_width_{name}"] = half_width(np.exp(in_reach))
        return found

    def _used(self, luck: Floats, drawn: Mapping[str, Floats], model: Floats) -> dict[str, Floats]:
        """Return the logarithm of each target's value over its limit, and of the load."""
        found = {}
        for key in self.table:
            name, own = str(key), self.table[key].to_numpy(float)
            error = own.std(ddof=1) / sqrt(len(own))
            scale = drawn.get(name, self._nearest(drawn)) + model
            shift = scale if name == STABLE else self.curve.effect(name, scale)
            zero = 0.0 if name == STABLE else self.curve.effect(name, np.zeros(1))
            found[name] = own.mean() + error * luck + shift - zero
        return found

    def _nearest(self, drawn: Mapping[str, Floats]) -> Floats:
        """Return the draws of the target that is missed first: the load scales as it does."""
        return drawn[max(drawn, key=lambda key: self.table[key].to_numpy(float).mean())]


def slo_chances(
    of: Likelihood,
    policies: Sequence[PolicyTable],
    servers: Mapping[str, float],
    loads: Callable[[str], Floats],
    report: Report,
) -> pd.DataFrame:
    """Return a row of `Likelihood.row` per policy with a number of servers.

    Parameters
    ----------
    of : Likelihood
        What computes them.
    policies : sequence of PolicyTable
        The rows.
    servers : mapping of str to float
        How many a policy is given.
    loads : callable
        Returns by policy each server's load, by replication.
    report : callable
        Called with progress: the share of these rows that is done.
    """
    rows = {}
    for number, policy in enumerate(policies):
        report(number / len(policies), f"how sure the SLO is met: {policy.label}")
        if 0 < servers[policy.label] < inf:
            rows[policy.label] = of.row(policy, servers[policy.label], loads(policy.label))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
