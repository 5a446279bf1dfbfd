"""What a capacity study comes to, in a few plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from busdoor.capacity.capacity import Capacity


def verdict(capacity: Capacity, request_rate: float | None = None) -> str:
    """Say which rate one server meets the SLO at, or how many servers a rate needs.

    Parameters
    ----------
    capacity : Capacity
        Of one or more policies.
    request_rate : float, optional
        To be served, requests per second.
    """
    kept = _best(capacity)
    card = capacity.config.pools[0].machine
    server = f"one {card}" if capacity.config.gpu.tp == 1 else f"{capacity.config.gpu.tp} {card} together"
    rates = [f"{row['request_rate']:.3g} requests/s with {name}" for name, row in kept.iterrows()]
    served = f"{server} serve{'s' * (server[:3] == 'one')} {_and(rates)}" if rates else "there is no rate yet"
    parts = [f"Within {capacity.slo}, {served}."]
    if request_rate is not None and rates:
        parts.append(_servers(capacity, request_rate, card))
    never = [str(name) for name in capacity.table.index if not capacity.table.loc[name, "low"] > 0]
    if never:
        parts.append(f"{_and(never)} keep{'s' * (len(never) == 1)} it at no rate.")
    return " ".join(parts)


def _servers(capacity: Capacity, request_rate: float, card: str) -> str:
    gpus = capacity.plan(request_rate)["gpus"][_best(capacity).index]
    fewest, *others = [f"{int(number):,}{{}} with {name}" for name, number in gpus.items()]
    needs = [fewest.format(f" {card}"), *(other.format("") for other in others)]
    return f"{request_rate:.3g} requests/s need {_and(needs)}."


def _best(capacity: Capacity) -> pd.DataFrame:
    """Return the rows that meet the SLO, highest rate first; of static batching's several the best one."""
    kept = capacity.table[capacity.table["low"] > 0].sort_values("low", ascending=False)
    families = pd.Index([str(name).partition(" (")[0] for name in kept.index])
    return kept[~families.duplicated()]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
