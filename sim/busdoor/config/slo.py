"""The table [slo]: what is promised of single requests, of means and of percentiles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from busdoor.config.tables import STRICT, Seconds, parse_seconds, reject_unknown
from busdoor.metrics import SLO_METRICS
from busdoor.names import unknown

_KEY = re.compile(rf"({'|'.join(SLO_METRICS)}|itl)(?:_(mean|p\d{{1,2}}(?:\.\d+)?))?")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SLO:
    """[slo]: what is promised. A plain limit is for every request, one with a percentile for that share of them.

    Parameters
    ----------
    limits_s : dict of str to float
        By `ttft`, `tpot`, `e2e` or `normalized`, alone or as in `ttft_p99` and `ttft_mean`, or by `itl_p99` and
        `itl_mean` of the gaps between tokens, pooled over all requests; seconds.
    goodput : float, optional
        Share of the requests that have to be within all plain limits together, in place of every single one.

    Examples
    --------
    >>> slo = SLO.from_table({"ttft_p99": "2s", "tpot": "100ms"})
    >>> slo.limits_s, slo.per_request_s
    ({'ttft_p99': 2.0, 'tpot': 0.1}, {'ttft': 2.0, 'tpot': 0.1})
    >>> SLO.from_table({"preset": "distserve-chat-13b", "tpot": "80ms"}).to_dict()
    {'ttft': 0.25, 'tpot': 0.08, 'goodput': 0.9}
    """

    limits_s: Mapping[str, Seconds] = Field(default_factory=dict)
    goodput: Annotated[float, Field(gt=0, le=1)] | None = None

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> SLO:
        """Build it from the table.

        Parameters
        ----------
        table : mapping
            Limits, `goodput`, and `preset`, the name of a published promise; other keys go before the preset's.

        Raises
        ------
        ValueError
            One sentence that names the key, the value and what would be right.
        """
        own = dict(table)
        merged = {**_preset(own.pop("preset")), **own} if "preset" in own else own
        goodput = merged.pop("goodput", None)
        limits = {key: _limit(key, value) for key, value in merged.items()}
        if goodput is not None and not limits.keys() & set(SLO_METRICS):
            raise ValueError(
                f"[slo] goodput = {goodput!r} has no limit to count by; give one for single requests, as in ttft = '2s'"
            )
        if goodput is not None and not (isinstance(goodput, int | float) and 0 < goodput <= 1):
            raise ValueError(f"[slo] goodput = {goodput!r}: it has to be a share above 0, at most 1, as in 0.99")
        return cls(limits_s=limits, goodput=goodput)

    @property
    def per_request_s(self) -> dict[str, float]:
        """The tightest limit on each latency: what a request has to meet to count as goodput."""
        limits: dict[str, float] = {}
        for metric, limit, share in self.shares().values():
            if metric in SLO_METRICS and share is not None:
                limits[metric] = min(limit, limits.get(metric, limit))
        return limits

    @property
    def together_s(self) -> dict[str, float]:
        """The plain limits where `goodput` counts who is within all of them; else none."""
        plain = {key: limit for key, limit in self.limits_s.items() if key in SLO_METRICS}
        return plain if self.goodput is not None else {}

    def shares(self) -> dict[str, tuple[str, float, float | None]]:
        """By key: the latency, its limit in seconds, and the share that has to be within; None for a limit on the mean.

        A plain limit that `goodput` counts asks nothing by itself: its share is 0.

        Examples
        --------
        >>> SLO.from_table({"ttft_p99": 2, "tpot": 0.1, "e2e_mean": 9}).shares()
        {'ttft_p99': ('ttft', 2.0, 0.99), 'tpot': ('tpot', 0.1, 1.0), 'e2e_mean': ('e2e', 9.0, None)}
        """
        every = 1.0 if self.goodput is None else 0.0
        parts = {key: key.partition("_") for key in self.limits_s}
        promised = {"": every, "mean": None}
        return {
            key: (metric, self.limits_s[key], promised[rest] if rest in promised else float(rest[1:]) / 100)
            for key, (metric, _, rest) in parts.items()
        }

    def to_dict(self) -> dict[str, float]:
        """Return the table as TOML or JSON would hold it; a preset is spelt out."""
        return {**self.limits_s, **({} if self.goodput is None else {"goodput": self.goodput})}


def _limit(key: str, value: Any) -> float:
    if key == "itl":
        raise ValueError("[slo] itl: gaps between tokens are pooled over all requests; promise itl_p99 or itl_mean")
    match = _KEY.fullmatch(key)
    if not match or match[2] in ("p0", "p00"):
        known = [f"{name}_{rest}" for name in (*SLO_METRICS, "itl") for rest in _STATISTICS]
        reject_unknown("[slo]", [key], [*SLO_METRICS, *known, "goodput", "preset"])
    try:
        limit = parse_seconds(value)
    except ValueError as error:
        raise ValueError(f"[slo] {key}: {error}") from None
    if not limit > 0:
        raise ValueError(f"[slo] {key} = {value!r}: it has to be over 0 seconds")
    return limit


def _preset(name: object) -> dict[str, Any]:
    from busdoor.capacity.presets import PRESETS

    if name not in PRESETS:
        raise ValueError(f"[slo] preset: {unknown('a preset', str(name), PRESETS)}")
    return {key: value for key, value in PRESETS[str(name)].items() if key != "source"}
