"""A recommendation in a few plain sentences."""

from __future__ import annotations

from busdoor.capacity.estimate import Outcome
from busdoor.recommend.data import RecommendationData
from busdoor.recommend.race import Entry


def verdict(found: RecommendationData) -> str:
    """Return in words what to buy, what comes next, and what static batching would have cost."""
    if found.winner is None:
        return _nothing(found)
    best = found.best(found.winner)
    sized = f", sized for a confidence of {100 * found.confidence:g} %" if found.confidence else ""
    parts = [
        f"{found.request_rate:.3g} requests/s within {found.slo}: {setup_text(best)}, "
        f"{found.winner.cost_per_hour:,.2f} per hour{sized}. It uses {100 * best.ratio:.0f} % of "
        f"the SLO ({_sure(best)} that it meets it, if the model is right).",
        *_raced(found),
        *_ties(found),
        *_next(found),
        *_static(found),
    ]
    if found.undecided:
        cheaper = ", ".join(found.best(place).candidate.title for place in found.undecided)
        parts.append(f"Undecided, and cheaper: {cheaper}.")
    if not found.complete:
        parts.append("The search was ended early: something cheaper may have been missed.")
    return " ".join(parts)


def setup_text(entry: Entry) -> str:
    """Return servers, setup and router in words."""
    own = entry.candidate
    behind = f" behind {own.setup.router}" if own.replicas > 1 else ""
    return f"{own.title}{behind}, {own.setup}"


def _nothing(found: RecommendationData) -> str:
    tried = len(found.verdicts)
    end = "" if found.complete else "; the search was ended early"
    nearest = min(
        (one for one in found.verdicts.values() if one.entries),
        key=lambda one: one.best.ratio,
        default=None,
    )
    near = f"; the nearest is {setup_text(nearest.best)}" if nearest else ""
    return (
        f"Nothing that was tried ({tried} numbers of servers) is sure to serve "
        f"{found.request_rate:.3g} requests/s within {found.slo}{near}{end}."
    )


def _sure(entry: Entry) -> str:
    """Write a confidence without claiming certainty.

    It is that of the draws alone, not of the model.
    """
    return (
        "over 99.9 % sure" if entry.confidence > 0.999 else f"{100 * entry.confidence:.1f} % sure"
    )


def _raced(found: RecommendationData) -> list[str]:
    """Return how many would be enough without the confidence, if these are fewer."""
    assert found.winner is not None
    own = found.winner
    fewer = [
        place.replicas
        for place, one in found.verdicts.items()
        if place.order == own.order and one.outcome is Outcome.MEETS
    ]
    if found.confidence is None or min(fewer, default=own.replicas) >= own.replicas:
        return []
    return [f"Were the model exact, {min(fewer)} of them would do."]


def _ties(found: RecommendationData) -> list[str]:
    assert found.winner is not None
    tied = [str(one.candidate.setup) for one in found.ties(found.winner)]
    if not tied:
        return []
    routers = {one.candidate.setup.router for one in found.ties(found.winner)}
    several = found.winner.replicas > 1
    behind = f" (behind {' or '.join(sorted(routers))})" if several else ""
    return [f"Tied with it, at the same cost: {'; '.join(dict.fromkeys(tied))}{behind}."]


def _next(found: RecommendationData) -> list[str]:
    assert found.winner is not None
    if found.runner_up is None:
        return []
    second, cost = found.best(found.runner_up), found.winner.cost_per_hour
    more = found.runner_up.cost_per_hour / cost - 1
    margin = f"{100 * more:.0f} % more" if more > 0 else "a tie: it costs the same"
    return [f"Next is {setup_text(second)}, {found.runner_up.cost_per_hour:,.2f} ({margin})."]


def _static(found: RecommendationData) -> list[str]:
    """Return what static batching costs, at its best."""
    assert found.winner is not None
    rows = found.ladder[[str(name).startswith("static") for name in found.ladder.index]]
    if not len(rows):
        return []
    cost = rows["cost_per_hour"].min()
    if cost != cost:
        return ["With static batching no number of these servers is sure to meet it."]
    times = cost / found.winner.cost_per_hour
    return [f"With static batching, at its best, it costs {cost:,.2f} per hour, {times:.3g} times."]
