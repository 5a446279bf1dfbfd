"""The table [recommend]: what `busdoor recommend` searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.core.registry import checked
from busdoor.core.units import STRICT, Seconds, reject_unknown

LINK_BYTES_PER_S = 50e9  # of each server where prefill is apart: 400 Gbit/s, as a DGX H100 has


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecommendTable:
    """[recommend]: what is searched, and for how long.

    Parameters
    ----------
    gpu : tuple of str or table
        Names, or tables [gpu] with a price; by default all of the catalogue that have one.
    budget : float or str
        Time after which the search ends with what it knows.
    confidence : float
        Probability of meeting the SLO that the servers are sized for: sampling, the calibration and
        the model's error counted together.
    tp : tuple of int
        GPUs that share each layer.
    max_num_seqs : tuple of int
        Most requests in a batch, beside what the engine chooses by the GPU.
    max_num_batched_tokens : tuple of int
        Token budgets of an iteration, beside what the engine chooses by the GPU.
    chunked_prefill : tuple of bool
        Whether prompts may be cut.
    prefix_caching : tuple of bool
        Tried only where requests name the blocks that they share.
    router : tuple of str
        Where there are several servers; the first is tried with all settings.
    disaggregated : bool
        Whether prefill and decode in pools of their own are tried, for an SLO on token times.
    link_bytes_per_s : float
        Of each server then.
    max_replicas : int
        Most servers.
    """

    gpu: tuple[str | dict[str, Any], ...] = ()
    budget: Seconds | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    tp: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    max_num_seqs: tuple[PositiveInt, ...] = (64, 256)
    max_num_batched_tokens: tuple[PositiveInt, ...] = (2048, 8192)
    chunked_prefill: tuple[bool, ...] = (True, False)
    prefix_caching: tuple[bool, ...] = (False, True)
    router: tuple[str, ...] = ("least_outstanding", "round_robin")
    disaggregated: bool = True
    link_bytes_per_s: PositiveFloat = LINK_BYTES_PER_S
    max_replicas: PositiveInt = 256


def parse_recommend(table: Any) -> RecommendTable:
    """Return the table [recommend]; one value stands for a list of it.

    Raises
    ------
    ValueError
        One sentence that names the key, the value and what would be right.

    Examples
    --------
    >>> parse_recommend({"tp": 2, "router": ["round_robin"]}).tp
    (2,)
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"recommend = {table!r}: it must be a table, [recommend]")
    reject_unknown("[recommend]", table, RecommendTable.__dataclass_fields__)
    lists = {
        key
        for key, one in RecommendTable.__dataclass_fields__.items()
        if str(one.type).startswith("tuple")
    }
    own = {
        key: tuple(value if isinstance(value, list | tuple) else [value]) if key in lists else value
        for key, value in table.items()
    }
    made: RecommendTable = checked(RecommendTable, own, "[recommend]")
    return made
