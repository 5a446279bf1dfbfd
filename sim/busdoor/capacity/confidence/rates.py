"""The highest rate as a law: what sampling, calibration and the model's error leave possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, log

import numpy as np

from busdoor.capacity.answer import Answer
from busdoor.capacity.estimate import stability
from busdoor.capacity.runs import Runs
from busdoor.capacity.trial import probe
from busdoor.comparison.rescaled import SAMPLES, Rescaled, half_width, log_ratios
from busdoor.comparison.sources import ModelError, model_error, step_time_draws
from busdoor.config import PolicyTable
from busdoor.core.arrays import Floats
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_target import STABLE
from busdoor.metrics.statistics import student_t
from busdoor.validation.data import ValidationData

DRAWS = 24  # of the calibration that run; the law between them is taken as normal
_REPLICATIONS = 4  # of a run: all on the same draws, so that only what differs shows
# Rates over the answer's at which the latencies are read: as far as a model's worst error reaches.
_NODES = (0.5, 0.65, 0.8, 0.9, 0.97, 1.03, 1.1, 1.2, 1.35, 1.6)
_BATCHES = 10  # that a single run is cut into, in place of replications
_TWO_SIDED = 0.9  # one-sided 95 %: how the search decides a bracket's ends


@dataclass(frozen=True, eq=False)
class Belief:
    """The highest rate that meets an SLO, as a law.

    `rates` are samples of it, requests/s; `by_target` of the rate at which each target is missed;
    `alone` of it with one source of uncertainty only, which `said` names. `scales`: by target, the
    step-time scale that each draw of the calibration amounts to, in logarithms.
    """

    rates: Floats
    by_target: Mapping[str, Floats]
    alone: Mapping[str, Floats]
    said: Mapping[str, str]
    scales: Mapping[str, Floats]
    model: ModelError

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the highest rate."""
        low, high = np.percentile(self.rates, [2.5, 97.5]).tolist()
        return low, high

    def chance(self, request_rate: float) -> float:
        """Return the probability that this rate meets the SLO."""
        return float((self.rates >= request_rate).mean())

    def missed(self, request_rate: float) -> dict[str, float]:
        """Return the probability that each target is missed at a rate."""
        return {key: float((own < request_rate).mean()) for key, own in self.by_target.items()}

    def half_widths(self) -> dict[str, float]:
        """Return half the 95 % interval that each source alone leaves, over the middle."""
        return {key: half_width(own) for key, own in self.alone.items()}

    def replicas(self, request_rate: float, confidence: float, at_least: int) -> int:
        """Return the fewest servers, from a number on, that suffice with a confidence."""
        reliable = float(np.percentile(self.rates, 100 * (1 - confidence)))
        if not reliable > 0:
            return 0
        return max(at_least, int(np.ceil(request_rate / reliable - 1e-9)))


def belief(
    runs: Runs,
    slo: SLO,
    policy: PolicyTable,
    answer: Answer,
    num_requests: int,
    validation: ValidationData | None = None,
    error: ModelError | None = None,
) -> Belief:
    """Return what is known of an answer's highest rate.

    All step times longer by a factor are the same server at a rate that much higher, with limits
    that much tighter: one set of runs around the answer tells what a model error does. A draw of
    the calibration runs at the answer's rate; the factor that has the same effect on a target stands
    for it there. `error` replaces what `model_error` says.
    """
    runs = replace(runs, pool=None)  # which may have ended with the search
    curve = _Curve.around(runs, slo, policy, answer, num_requests)
    load = answer.rate / answer.saturated_rps
    error = error or model_error(runs.config, load, validation)
    scales, said = _calibrated(curve, runs, slo, policy, answer, num_requests)
    rng = np.random.default_rng(runs.config.seed)
    width = log(answer.high / answer.low) if isfinite(answer.high) else log(2.0)
    # the bracket's ends are bounds of Student's t, over as many replications
    freedom = len(runs.traces) - 1 or _BATCHES - 1
    luck = width / 2 * rng.standard_t(freedom, SAMPLES) / student_t(_TWO_SIDED, freedom)
    model = rng.normal(0.0, error.sd, SAMPLES)
    number = rng.integers(0, len(scales[STABLE]), SAMPLES)
    drawn = {key: own[number] for key, own in scales.items()}
    none = dict.fromkeys(scales, np.zeros(SAMPLES))
    by_target = {key: own * np.exp(luck) for key, own in curve.rates(drawn, model).items()}
    alone = {
        "sampling": answer.rate * np.exp(luck),
        "calibration": _least(curve.rates(drawn, 0 * model)),
        "model": _least(curve.rates(none, model)),
    }
    sampled = f"bracket {answer.low:.3g} to {answer.high:.3g} requests/s"
    sources = {"sampling": sampled, "calibration": said, "model": error.source}
    return Belief(_least(by_target), by_target, alone, sources, scales, error)


def _least(by_target: Mapping[str, Floats]) -> Floats:
    least: Floats = np.min(list(by_target.values()), axis=0)
    return least


@dataclass(frozen=True, eq=False)
class _Curve(Rescaled):
    """Also the saturated rate's logarithm over the answer's, and that of the answer."""

    saturated_log: float = inf
    answer_log: float = 0.0

    @classmethod
    def around(
        cls, runs: Runs, slo: SLO, policy: PolicyTable, answer: Answer, num_requests: int
    ) -> _Curve:
        nodes = answer.rate * np.array(_NODES)
        rows = [_ratios(runs, slo, policy, rate, num_requests) for rate in nodes.tolist()]
        own, known = Rescaled.of(_NODES, rows), isfinite(answer.saturated_rps)
        saturated_log = log(answer.saturated_rps / answer.rate) if known else inf
        return cls(own.rates_log, own.ratios_log, saturated_log, log(answer.rate))

    def rates(self, scales: Mapping[str, Floats], model: Floats) -> dict[str, Floats]:
        """Return the rate at which each target is missed, where step times are scaled so."""
        zero = dict.fromkeys(scales, np.zeros(1))
        base = min(float(own[0]) for own in self._crossings(zero, np.zeros(1)).values())
        found = self._crossings(scales, model)
        return {key: np.exp(own - base + self.answer_log) for key, own in found.items()}

    def _crossings(self, scales: Mapping[str, Floats], model: Floats) -> dict[str, Floats]:
        """Return logarithms of rates: of the server that is slower by exp(shift), over that."""
        found: dict[str, Floats] = {}
        for key, own in self.ratios_log.items():
            shift = scales[key] + model
            grid = own + 1e-9 * np.arange(len(own))  # a flat part has one crossing
            found[key] = np.interp(-shift, grid, self.rates_log, right=inf) - shift
        found[STABLE] = self.saturated_log - (scales[STABLE] + model)
        return found


def _ratios(
    runs: Runs, slo: SLO, policy: PolicyTable, rate: float, num_requests: int
) -> dict[str, float]:
    """Return the logarithm of each target's value over its limit at a rate."""
    count = min(_REPLICATIONS, len(runs.traces))
    samples = runs.at_rate(policy, rate, num_requests, count)
    tried = probe(rate, samples, slo.targets, stability(0.0, np.empty(0)))
    return log_ratios({target.key: tried.ratio(target.key) for target in slo.targets})


def _calibrated(
    curve: _Curve, runs: Runs, slo: SLO, policy: PolicyTable, answer: Answer, num_requests: int
) -> tuple[dict[str, Floats], str]:
    """Return by target the scales that draws of the calibration amount to, and their source.

    The load scales as the target that binds, or that comes nearest to it.
    """
    models, said = step_time_draws(runs.config, DRAWS)

    def at(own: Runs) -> dict[str, float]:
        return _ratios(own, slo, policy, answer.rate, num_requests)

    own = at(runs)
    rows = [at(replace(runs, config=replace(runs.config, step_time=model))) for model in models]
    scales = curve.scales(own, rows)
    return scales | {STABLE: scales[max(own, key=lambda key: own[key])]}, said
