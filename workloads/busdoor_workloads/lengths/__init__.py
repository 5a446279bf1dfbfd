"""Distributions of prompt and answer lengths, named by `type` in configuration files."""

from busdoor_workloads.lengths.base import MAX_TOKENS, AnyLengths, Continuous, Lengths, as_lengths
from busdoor_workloads.lengths.families import (
    Exponential,
    Gamma,
    Pareto,
    TruncatedExponential,
    Weibull,
)
from busdoor_workloads.lengths.mixtures import Bimodal, Mixture, ParetoLogNormal
from busdoor_workloads.lengths.normal import LogNormal, Normal
from busdoor_workloads.lengths.pairs import (
    AnyPairs,
    Independent,
    Pairs,
    Resample,
    WeightedPairs,
    as_pairs,
)
from busdoor_workloads.lengths.rank_table import RankTable
from busdoor_workloads.lengths.tables import Histogram, Quantiles, Zipf
from busdoor_workloads.lengths.whole import Fixed, Geometric, RangeRatio, Uniform

__all__ = [
    "MAX_TOKENS",
    "AnyLengths",
    "AnyPairs",
    "Bimodal",
    "Continuous",
    "Exponential",
    "Fixed",
    "Gamma",
    "Geometric",
    "Histogram",
    "Independent",
    "Lengths",
    "LogNormal",
    "Mixture",
    "Normal",
    "Pairs",
    "Pareto",
    "ParetoLogNormal",
    "Quantiles",
    "RangeRatio",
    "RankTable",
    "Resample",
    "TruncatedExponential",
    "Uniform",
    "Weibull",
    "WeightedPairs",
    "Zipf",
    "as_lengths",
    "as_pairs",
]
