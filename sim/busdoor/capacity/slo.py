"""What is promised: limits on means and percentiles of latencies, or on the share of requests within limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from busdoor.capacity.presets import PRESETS
from busdoor.config import parse_seconds
from busdoor.config.tables import reject_unknown
from busdoor.metrics import SLO_METRICS
from busdoor.names import unknown
from busdoor.plots.style import duration_text

LATENCIES = (*SLO_METRICS, "itl")
TOKEN_TIMES = ("tpot", "itl")  # what an answer that is released whole does not have
GOODPUT = 0.99  # share of requests within plain limits, unless said otherwise

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "normalized": "E2E per token", "itl": "ITL"}
_KEY = re.compile(rf"({'|'.join(LATENCIES)})_(mean|p\d{{1,2}}(?:\.\d+)?)")


@dataclass(frozen=True)
class Target:
    """One thing that is promised.

    Parameters
    ----------
    key : str
        Such as "ttft_p99", "normalized_mean" or "goodput".
    limits_s : mapping of str to float
        Limit in seconds by latency; several only for goodput.
    share : float, optional
        Of the requests (of the gaps between tokens, for ITL) that has to be within; a limit on the mean without it.
    """

    key: str
    limits_s: Mapping[str, float]
    share: float | None

    def __str__(self) -> str:
        """Return it in words."""
        if self.key == "goodput":
            limits = " and ".join(f"{_NAMES[name]} ≤ {duration_text(limit)}" for name, limit in self.limits_s.items())
            return f"{100 * (self.share or 0):g} % of requests with {limits}"
        return f"{self.name} ≤ {duration_text(self.limit_s)}"

    @property
    def name(self) -> str:
        """What tables call it."""
        latency, _, statistic = self.key.partition("_")
        if self.key == "goodput":
            return "goodput"
        return f"mean {_NAMES[latency]}" if statistic == "mean" else f"{_NAMES[latency]} {statistic}"

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
        """Whether it is about times between tokens."""
        return any(name in TOKEN_TIMES for name in self.limits_s)


@dataclass(frozen=True)
class Promise:
    """All that is promised: a service level objective.

    Parameters
    ----------
    targets : tuple of Target
        To be met together.
    preset : str
        The preset that it began with, if any.

    Examples
    --------
    >>> print(Promise.from_table({"ttft_p99": "2s", "normalized_mean": 0.05}))
    TTFT p99 ≤ 2 s, mean E2E per token ≤ 50 ms
    >>> print(Promise.from_table({"preset": "distserve-chat-13b", "tpot": "80ms"}))
    90 % of requests with TTFT ≤ 250 ms and TPOT ≤ 80 ms (distserve-chat-13b)
    """

    targets: tuple[Target, ...]
    preset: str = ""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Promise:
        """Build it from a table [slo].

        Parameters
        ----------
        table : mapping
            `preset`, a name; limits such as `ttft_p99 = "2s"` or `normalized_mean = 0.05` (seconds); plain ones such as
            `tpot = "100ms"` for single requests, of which the share `goodput` has to be within all of them.

        Raises
        ------
        ValueError
            One sentence that names the key, the value and what would be right.
        """
        own = dict(table)
        preset = own.pop("preset", "")
        merged = {**_preset(preset), **own} if preset else own
        goodput = merged.pop("goodput", None)
        plain = {key: _limit(key, value) for key, value in merged.items() if key in SLO_METRICS}
        targets = [_target(key, value) for key, value in merged.items() if key not in plain]
        if plain:
            targets.append(Target("goodput", plain, _share(GOODPUT if goodput is None else goodput)))
        elif goodput is not None:
            raise ValueError(
                f"goodput = {goodput} has no limit to count by; give one for single requests, as in ttft = '2s'"
            )
        if not targets:
            raise ValueError("nothing is promised; give a limit, as in ttft_p99 = '2s', or a preset")
        return cls(tuple(targets), preset)

    def __str__(self) -> str:
        """Return it in words."""
        return ", ".join(map(str, self.targets)) + (f" ({self.preset})" if self.preset else "")

    @property
    def needs_tokens(self) -> bool:
        """Whether any part is about times between tokens."""
        return any(target.needs_tokens for target in self.targets)

    @property
    def needs_gaps(self) -> bool:
        """Whether any part needs every single gap between tokens."""
        return any("itl" in target.limits_s for target in self.targets)

    def to_dict(self) -> dict[str, float]:
        """Return the table that it can be built from, without the preset's name."""
        table: dict[str, float] = {}
        for target in self.targets:
            if target.key == "goodput":
                table |= {**target.limits_s, "goodput": target.share or GOODPUT}
            else:
                table[target.key] = target.limit_s
        return table


def slo_table(flags: Iterable[str], goodput: float | None = None) -> dict[str, Any]:
    """Turn flags into a table [slo].

    Parameters
    ----------
    flags : iterable of str
        LATENCY=LIMIT, or the name of a preset.
    goodput : float, optional
        Share of requests that have to be within the plain limits.

    Examples
    --------
    >>> slo_table(["mlperf-llama3.1-8b-server", "tpot_p99=80ms"])
    {'preset': 'mlperf-llama3.1-8b-server', 'tpot_p99': '80ms'}
    """
    table: dict[str, Any] = {}
    for flag in flags:
        key, equals, value = (part.strip() for part in flag.partition("="))
        if equals:
            table[key] = _number(value)
        else:
            _preset(key)
            table["preset"] = key
    return table if goodput is None else table | {"goodput": goodput}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _preset(name: object) -> dict[str, Any]:
    if name not in PRESETS:
        raise unknown("a promise like ttft_p99=2s, nor a preset", str(name), PRESETS)
    return {key: value for key, value in PRESETS[str(name)].items() if key != "source"}


def _target(key: str, value: Any) -> Target:
    if key == "itl":
        raise ValueError("[slo] itl: gaps between tokens are pooled over all requests; promise itl_p99 or itl_mean")
    match = _KEY.fullmatch(key)
    if not match or match[2] in ("p0", "p00"):
        known = [f"{name}_{rest}" for name in LATENCIES for rest in ("mean", "p50", "p90", "p95", "p99")]
        reject_unknown("[slo]", [key if key not in known else ""], [*known, *SLO_METRICS, "goodput"])
    assert match
    share = None if match[2] == "mean" else float(match[2][1:]) / 100
    return Target(key, {match[1]: _limit(key, value)}, share)


def _limit(key: str, value: Any) -> float:
    try:
        limit = parse_seconds(value)
    except ValueError as error:
        raise ValueError(f"[slo] {key}: {error}") from None
    if not (limit > 0 and isfinite(limit)):
        raise ValueError(f"[slo] {key} = {value!r}: it has to be over 0 seconds, and finite")
    return limit


def _share(goodput: Any) -> float:
    if not (isinstance(goodput, float) and 0 < goodput < 1):
        raise ValueError(
            f"goodput = {goodput}: it has to be a share above 0 and below 1, as in 0.99; samples cannot prove 1"
        )
    return goodput
