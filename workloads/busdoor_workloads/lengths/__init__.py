"""Distributions of prompt and answer lengths, named by `type` in configuration files."""

from busdoor_workloads.lengths.base import MAX_TOKENS, AnyLengths, Continuous, Lengths, as_lengths
from busdoor_workloads.lengths.families import (
    Exponential,
    Gamma,
    LogNormal,
    Normal,
    Pareto,
    Quantiles,
    TruncatedExponential,
    Weibull,
)
from busdoor_workloads.lengths.mixtures import Bimodal, Mixture, ParetoLogNormal
from busdoor_workloads.lengths.whole import Fixed, Geometric, Histogram, RangeRatio, Uniform, Zipf

__all__ = [
    "MAX_TOKENS",
    "AnyLengths",
    "Bimodal",
    "Continuous",
    "Exponential",
    "Fixed",
    "Gamma",
    "Geometric",
    "Histogram",
    "Lengths",
    "LogNormal",
    "Mixture",
    "Normal",
    "Pareto",
    "ParetoLogNormal",
    "Quantiles",
    "RangeRatio",
    "TruncatedExponential",
    "Uniform",
    "Weibull",
    "Zipf",
    "as_lengths",
]
