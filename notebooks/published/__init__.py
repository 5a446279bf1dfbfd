"""Experiments that others published, run again: a function each, which returns a table.

Every docstring names what was published, which shape of it has to come out, and where this differs
and why.
"""

from published.anyscale import anyscale, anyscale_factors, plot_anyscale
from published.bubbles import bubble_table, plot_bubbles
from published.kv_split import kv_split, plot_kv_split
from published.orca import orca_knees, orca_rates, plot_orca

__all__ = [
    "anyscale",
    "anyscale_factors",
    "bubble_table",
    "kv_split",
    "orca_knees",
    "orca_rates",
    "plot_anyscale",
    "plot_bubbles",
    "plot_kv_split",
    "plot_orca",
]
