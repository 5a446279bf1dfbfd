"""What a validation cannot show: fitted runs, hosts, the machine's own spread, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from busdoor.core.format import as_share
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.validation.data import ValidationData
from busdoor.validation.run import RunValidation
from busdoor.validation.spread import QUIET_SHARE
from busdoor.validation.thresholds import THRESHOLDS, factor

HOSTS = {
    "meta": "as measured at the engine's start",
    "run": "the mean of the run's own launches",
    "calibration": "the calibration's (too few launches in the run)",
}


def limit_lines(validation: ValidationData) -> list[str]:
    """Return what these numbers cannot show."""
    lines = []
    if validation.fitted_to:
        lines.append(
            f"The calibration was fitted to {', '.join(validation.fitted_to)}: bars are for "
            f"unseen runs."
        )
    if any(run.transient for run in validation.runs):
        passing = [f"{run.name} ({run.transient})" for run in validation.runs if run.transient]
        lines.append(f"t: a transient, which shows no load: {'; '.join(passing)}.")
    silent = [run.name for run in validation.runs if not len(run.measured.iterations)]
    if silent:
        lines.append(
            f"No iterations were measured in {', '.join(silent)}: nothing is known of its step "
            f"time."
        )
    if any(factor(validation, [run]) > 1 for run in validation.runs):
        lines.append("Measured on a processor: its bars are twice those of a GPU.")
    lines += [*host_lines(validation.runs), *spread_lines(validation)]
    if "transferred_from" in validation.about:
        lines.append(
            f"The calibration is transferred from {validation.about['transferred_from']}, not "
            f"measured."
        )
    if isinstance(validation.step_time, CalibratedStepTime):
        lines.append(
            "The step time knows sums over a batch only: contexts that differ within it, and the "
            "longest of them, have no term of their own."
        )
    return lines


def spread_lines(validation: ValidationData) -> Iterator[str]:
    """Return how much the machine differs from itself, how long it ran, and if it was busy."""
    spread = validation.spread
    if isfinite(spread.each) and isfinite(spread.parts):
        yield (
            f"The machine's own spread: a decode iteration differs by {as_share(spread.each)} from "
            "the like one right before it, and those of one part of a run by "
            f"{as_share(spread.parts)} from those of the others{_amplified(validation)}."
        )
    if isfinite(spread.cpu_s):
        yield f"The runs took {spread.cpu_s:.0f} s of processor time and {spread.wall_s:.0f} s of the wall clock."
    if spread.core_share < QUIET_SHARE:
        yield (
            f"The machine was busy: the runs had {as_share(spread.core_share)} of a core; repeat "
            f"them when it is quiet."
        )
    limit = THRESHOLDS["e2e_mean"] * factor(validation, validation.runs)
    if spread.parts > limit:
        yield (
            "The machine is too noisy to judge a simulator by: its parts of a run differ by more "
            f"than the {as_share(limit)} that the mean E2E latency may be off."
        )


def _amplified(validation: ValidationData) -> str:
    """Return a clause: what queueing at the highest load below 1 makes of the spread."""
    loads = [run.load for run in validation.runs if run.load < 1]
    if not loads:
        return ""
    load = max(loads)
    return (
        f", of which queueing at a load of {load:.2f} makes about "
        f"{as_share(validation.spread.parts / (1 - load))}"
    )


def host_lines(runs: Sequence[RunValidation]) -> list[str]:
    """Return whose launch times the runs were simulated with, where a host launches kernels one by one.

    >>> host_lines([])
    []
    """
    named: dict[str, list[str]] = {}
    for run in runs:
        if run.host_launch:
            named.setdefault(run.host_launch.source, []).append(run.name)
    said = [f"{HOSTS[source]} for {', '.join(names)}" for source, names in named.items()]
    if said:
        return [f"The time in which the host launches a step is the machine's: {'; '.join(said)}."]
    return []
