"""The table [slo], read once for all commands: limits on means, percentiles and shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from busdoor.core.names import unknown
from busdoor.core.units import number_or_text, parse_seconds, reject_unknown
from busdoor.metrics.metrics import SLO_METRICS
from busdoor.metrics.slo_class import KEYS, RequestClass
from busdoor.metrics.slo_presets import PRESETS
from busdoor.metrics.slo_target import LATENCIES, Target
from busdoor_workloads.given import instance

GOODPUT = 0.99  # share of the requests within all plain limits, unless given
_KEY = re.compile(rf"({'|'.join(LATENCIES)})_(mean|p(?!0+(?:\.0+)?$)\d{{1,2}}(?:\.\d+)?)")
_NAME = re.compile(r"[A-Za-z][\w-]*")  # of a class
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class SLO:
    """[slo]: targets that must be met together; false if there is none.

    Parameters
    ----------
    targets : tuple of Target
        One for each limit on a mean or a percentile, and one, "goodput", for all plain limits
        together.
    preset : str
        The preset that it began with, if any.
    classes : tuple of RequestClass
        Requests that have targets of their own, beside those of all.

    Examples
    --------
    >>> print(SLO.from_table({"ttft_p99": "2s", "normalized_mean": 0.05}))
    TTFT p99 ≤ 2 s, mean E2E per token ≤ 50 ms
    >>> print(SLO.from_table({"ttft": "2s", "tpot": "100ms"}))
    99 % of requests with TTFT ≤ 2 s and TPOT ≤ 100 ms
    >>> print(SLO.from_table({"ttft_p99": "5s", "chat": {"priority": 0, "ttft_p99": "1s"}}))
    TTFT p99 ≤ 5 s, chat: TTFT p99 ≤ 1 s
    >>> print(SLO.from_table({"preset": "distserve-chat-13b", "tpot": "80ms"}))
    90 % of requests with TTFT ≤ 250 ms and TPOT ≤ 80 ms (distserve-chat-13b)
    """

    targets: tuple[Target, ...] = ()
    preset: str = field(default="", compare=False)
    classes: tuple[RequestClass, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> SLO:
        """Return the SLO of a table.

        Parameters
        ----------
        table : mapping
            Limits on a mean or a percentile, as in `normalized_mean = 0.05` (seconds) and `ttft_p99
            = "2s"`; plain ones for single requests, as in `tpot = "100ms"`, of which the share
            `goodput` (0.99 unless given) must be within all of them; and `preset`, a name, whose
            limits the other keys override. A table in it, [slo.NAME], is the SLO of a class of
            requests: `priority = 1`, or `column` with `value`, `at_least` or `below`, and limits.

        Raises
        ------
        ValueError
            One sentence that names the key, the value and what would be right.
        """
        own = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
        classes = [_class(name, table[name]) for name in table if name not in own]
        preset = own.pop("preset", "")
        merged = {**(_preset(preset) if preset != "" else {}), **own}
        goodput = merged.pop("goodput", None)
        limits = {key: _limit(key, value) for key, value in merged.items()}
        plain = {key: limit for key, limit in limits.items() if key in SLO_METRICS}
        targets = [_target(key, limit) for key, limit in limits.items() if key not in plain]
        if goodput is not None and not plain:
            raise ValueError(
                f"[slo] goodput = {goodput!r} has no limit to count by; give one for single "
                f"requests, as in ttft = '2s'"
            )
        if plain:
            targets.append(
                Target("goodput", plain, _share(GOODPUT if goodput is None else goodput))
            )
        targets += [target for _, slo in classes for target in slo.targets]
        return cls(tuple(targets), preset, tuple(requests for requests, _ in classes))

    def __bool__(self) -> bool:
        """Return whether there is any target."""
        return bool(self.targets)

    def __str__(self) -> str:
        """Return all targets in words."""
        return ", ".join(map(str, self.targets)) + (f" ({self.preset})" if self.preset else "")

    def target(self, key: str) -> Target:
        """Return the target of a key."""
        return next(target for target in self.targets if target.key == key)

    @property
    def needs_tokens(self) -> bool:
        """Whether any part is about times between tokens."""
        return any(target.needs_tokens for target in self.targets)

    @property
    def needs_gaps(self) -> bool:
        """Whether any part needs every single gap between tokens."""
        return any("itl" in target.limits_s for target in self.targets)

    @property
    def plain_s(self) -> Mapping[str, float]:
        """The plain limits, in seconds: those that `goodput` counts together."""
        return next((target.limits_s for target in self.targets if target.key == "goodput"), {})

    @property
    def per_request_s(self) -> dict[str, float]:
        """The tightest limit on each latency of a request, without means: what goodput counts."""
        limits: dict[str, float] = {}
        for target in self.targets:
            for latency, limit in () if target.group else target.limits_s.items():
                if latency in SLO_METRICS and target.share is not None:
                    limits[latency] = min(limit, limits.get(latency, limit))
        return limits

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON would hold it; a preset is written out."""
        table: dict[str, Any] = {one.name: one.to_dict() for one in self.classes}
        for target in self.targets:
            own = table[target.group] if target.group else table
            goodput = {**target.limits_s, "goodput": target.share}
            own |= goodput if target.is_goodput else {target.own_key: target.limit_s}
        return table


def _class(name: str, table: Mapping[str, Any]) -> tuple[RequestClass, SLO]:
    """Return a table [slo.NAME] as the requests it is for, and their SLO."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"[slo.{name}]: a class must be named by letters, digits, _ and -")
    requests = RequestClass.from_table(name, table)
    try:
        slo = SLO.from_table({key: value for key, value in table.items() if key not in KEYS})
    except ValueError as error:
        raise ValueError(str(error).replace("[slo]", f"[slo.{name}]")) from None
    if not slo or slo.needs_gaps or slo.classes:
        raise ValueError(
            f"[slo.{name}] needs limits on ttft, tpot, e2e or normalized; gaps between tokens "
            f"(itl) are pooled over all requests"
        )
    targets = (replace(one, key=f"{name}.{one.key}", group=name) for one in slo.targets)
    return requests, SLO(tuple(targets))


def as_slo_table(slo: object) -> Mapping[str, Any]:
    """Return a table [slo] of a table, or of limits and presets as flags have them.

    >>> as_slo_table("ttft_p99=2s"), as_slo_table(None)
    ({'ttft_p99': '2s'}, {})
    """
    if isinstance(slo, Mapping):
        return slo
    flags = [] if slo is None else [slo] if isinstance(slo, str) else slo
    instance(
        "slo", flags, Sequence, "a limit as in 'ttft_p99=2s', a preset's name, several, or a table"
    )
    return slo_table(flags)  # type: ignore[arg-type]


def slo_table(flags: Iterable[str], goodput: float | None = None) -> dict[str, Any]:
    """Turn flags into a table [slo].

    Parameters
    ----------
    flags : iterable of str
        LATENCY=LIMIT, or the name of a preset.
    goodput : float, optional
        Share of requests that must be within the plain limits.

    Examples
    --------
    >>> slo_table(["mlperf-llama3.1-8b-server", "tpot_p99=80ms"])
    {'preset': 'mlperf-llama3.1-8b-server', 'tpot_p99': '80ms'}
    """
    table: dict[str, Any] = {}
    for flag in flags:
        instance("a limit of slo", flag, str, "a text, as in 'ttft_p99=2s'")
        key, equals, value = (part.strip() for part in flag.partition("="))
        if equals:
            table[key] = number_or_text(value)
        else:
            _preset(key, "a limit as in ttft_p99=2s, nor a preset")
            table["preset"] = key
    return table if goodput is None else table | {"goodput": goodput}


def _preset(name: object, what: str = "a preset") -> dict[str, Any]:
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"[slo] preset: {unknown(what, str(name), PRESETS)}")
    return {key: value for key, value in PRESETS[str(name)].items() if key != "source"}


def _target(key: str, limit_s: float) -> Target:
    latency, _, statistic = key.partition("_")
    return Target(
        key, {latency: limit_s}, None if statistic == "mean" else float(statistic[1:]) / 100
    )


def _limit(key: str, value: Any) -> float:
    if key == "itl":
        raise ValueError(
            "[slo] itl: gaps between tokens are pooled over all requests, so that no single "
            "request has one; give itl_p99 or itl_mean"
        )
    if key not in SLO_METRICS and not _KEY.fullmatch(key):
        known = [f"{name}_{statistic}" for name in LATENCIES for statistic in _STATISTICS]
        reject_unknown("[slo]", [key], [*SLO_METRICS, *known, "goodput", "preset"])
    try:
        limit = parse_seconds(value)
    except ValueError as error:
        raise ValueError(f"[slo] {key}: {error}") from None
    if not (limit > 0 and isfinite(limit)):
        raise ValueError(f"[slo] {key} = {value!r}: it must be over 0 seconds, and finite")
    return limit


def _share(goodput: Any) -> float:
    if isinstance(goodput, bool) or not (isinstance(goodput, int | float) and 0 < goodput <= 1):
        raise ValueError(
            f"[slo] goodput = {goodput!r}: it must be a share above 0, at most 1, as in 0.99"
        )
    return float(goodput)
