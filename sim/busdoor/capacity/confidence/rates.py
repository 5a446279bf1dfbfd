"""The highest rate as a law: what sampling, calibration and the model's error leave possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, log

import numpy as np

from busdoor.capacity.answer import Answer
from busdoor.capacity.estimate import STABLE, stability
from busdoor.capacity.runs import Runs
from busdoor.capacity.trial import probe
from busdoor.comparison.sources import ModelError, model_error, step_time_draws
from busdoor.config import PolicyTable
from busdoor.core.arrays import Floats
from busdoor.metrics.slo import SLO
from busdoor.metrics.statistics import student_t
from busdoor.validation.data import ValidationData

SAMPLES = 4000  # of the law: a chance of 5 % is then known to 0.7 %
DRAWS = 24  # of the calibration that run; the law between them is taken as normal
_REPLICATIONS = 4  # of a run: all on the same draws, so that only what differs shows
# Rates over the answer's at which the latencies are read: as far as a model's worst error reaches.
_NODES = (0.5, 0.65, 0.8, 0.9, 0.97, 1.03, 1.1, 1.2, 1.35, 1.6)
_BATCHES = 10  # that a single run is cut into, in place of replications
_TWO_SIDED = 0.9  # one-sided 95 %: how the search decides a bracket's ends
SOURCES = ("sampling", "calibration", "model")


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
        ends = {key: np.percentile(own, [2.5, 50, 97.5]) for key, own in self.alone.items()}
        return {key: float((own[2] - own[0]) / 2 / own[1]) for key, own in ends.items()}

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
    number = rng.integers(0, max(1, len(next(iter(scales.values()), ()))), SAMPLES)
    drawn = {key: own[number] if len(own) else np.zeros(SAMPLES) for key, own in scales.items()}
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
class _Curve:
    """By target, the logarithm of its value over its limit, at logarithms of rates."""

    rates_log: Floats
    ratios_log: Mapping[str, Floats]
    saturated_log: float
    answer_log: float

    @classmethod
    def around(
        cls, runs: Runs, slo: SLO, policy: PolicyTable, answer: Answer, num_requests: int
    ) -> _Curve:
        nodes = answer.rate * np.array(_NODES)
        rows = [log_ratios(runs, slo, policy, rate, num_requests) for rate in nodes.tolist()]
        ratios = {
            key: np.maximum.accumulate(np.array([row[key] for row in rows])) for key in rows[0]
        }
        saturated = answer.saturated_rps if isfinite(answer.saturated_rps) else inf
        return cls(np.log(nodes), ratios, log(saturated), log(answer.rate))

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

    def scale_of(self, key: str, ratio_log: float) -> float:
        """Return the scale of all step times that has the effect on a target at the answer."""
        shifts = np.linspace(-0.7, 0.7, 281)  # a factor of two either way, in steps of 0.5 %
        effect = np.interp(self.answer_log + shifts, self.rates_log, self.ratios_log[key]) + shifts
        return float(np.interp(ratio_log, effect, shifts))


def log_ratios(
    runs: Runs, slo: SLO, policy: PolicyTable, rate: float, num_requests: int
) -> dict[str, float]:
    """Return the logarithm of each target's value over its limit at a rate."""
    count = min(_REPLICATIONS, len(runs.traces))
    samples = runs.at_rate(policy, rate, num_requests, count)
    tried = probe(rate, samples, slo.targets, stability(0.0, np.empty(0)))
    found = {target.key: tried.ratio(target.key) for target in slo.targets}
    return {
        key: log(min(max(own, 1e-9), 1e9)) if own == own else -20.0 for key, own in found.items()
    }


def _calibrated(
    curve: _Curve, runs: Runs, slo: SLO, policy: PolicyTable, answer: Answer, num_requests: int
) -> tuple[dict[str, Floats], str]:
    """Return by target the scales that draws of the calibration amount to, and their source.

    The load scales as the target that binds, or that comes nearest to it.
    """
    models, said = step_time_draws(runs.config, DRAWS)
    own = log_ratios(runs, slo, policy, answer.rate, num_requests)
    scales: dict[str, list[float]] = {key: [] for key in (*own, STABLE)}
    for model in models:
        other = replace(runs, config=replace(runs.config, step_time=model))
        ratios = log_ratios(other, slo, policy, answer.rate, num_requests)
        for key, ratio in ratios.items():
            scales[key].append(curve.scale_of(key, ratio) - curve.scale_of(key, own[key]))
        near = max(own, key=lambda key: own[key])
        scales[STABLE].append(scales[near][-1])
    return {key: np.array(values) for key, values in scales.items()}, said
