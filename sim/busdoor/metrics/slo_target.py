"""One part of an SLO: a limit on a latency, for a share of the requests or for the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from busdoor.core.format import duration_text
from busdoor.metrics.metrics import SLO_METRICS

LATENCIES = (*SLO_METRICS, "itl")
TOKEN_TIMES = ("tpot", "itl")  # an answer that is released whole has none
STABLE = "stability"  # beside the targets: that the server carries the rate at all
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "normalized": "E2E per token", "itl": "ITL"}


@dataclass(frozen=True)
class Target:
    """One part of an SLO.

    Parameters
    ----------
    key : str
        Such as "ttft_p99", "normalized_mean" or "goodput".
    limits_s : mapping of str to float
        Limit in seconds by latency; several only for goodput.
    share : float, optional
        Of the requests (of the gaps between tokens, for ITL) that must be within; a limit on the
        mean without it.
    group : str
        Class of requests that it is for, see `busdoor.metrics.slo_class`; all without it. Its name
        and a dot begin the key.
    """

    key: str
    limits_s: Mapping[str, float]
    share: float | None
    group: str = ""

    def __str__(self) -> str:
        """Return the target in words."""
        if self.is_goodput:
            limits = " and ".join(
                f"{_NAMES[name]} ≤ {duration_text(limit)}" for name, limit in self.limits_s.items()
            )
            return f"{self._of}{100 * (self.share or 0):g} % of requests with {limits}"
        return f"{self.name} ≤ {duration_text(self.limit_s)}"

    @property
    def name(self) -> str:
        """Its name in tables."""
        latency, _, statistic = self.own_key.partition("_")
        if self.is_goodput:
            return f"{self._of}goodput"
        shown = _NAMES[latency]
        return f"{self._of}{f'mean {shown}' if statistic == 'mean' else f'{shown} {statistic}'}"

    @property
    def _of(self) -> str:
        return f"{self.group}: " if self.group else ""

    @property
    def own_key(self) -> str:
        """The key within its table, that of all requests or of its class."""
        return self.key.removeprefix(f"{self.group}.") if self.group else self.key

    @property
    def is_goodput(self) -> bool:
        """Whether it counts requests within several limits."""
        return self.own_key == "goodput"

    @property
    def latency(self) -> str:
        """The latency that it limits (the first, for goodput)."""
        return next(iter(self.limits_s))

    @property
    def limit_s(self) -> float:
        """The limit on it, in seconds."""
        return self.limits_s[self.latency]

    @property
    def needs_tokens(self) -> bool:
        """Whether it limits times between tokens."""
        return any(name in TOKEN_TIMES for name in self.limits_s)
