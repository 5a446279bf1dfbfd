"""Rows of one policy, such as static batching at two batch sizes, distinct in one figure."""

from __future__ import annotations

from collections.abc import Iterable

from busdoor.plots.style import Identity, identity, tint

# How further rows of one policy look: the strength of its colour, and marker and line style in
# place of its own.
_VARIANTS = ((1.0, "", ""), (0.7, "^", "--"), (1.0, "v", ":"), (0.5, "X", "-."))


def variant(look: Identity, number: int) -> Identity:
    """Return the look of a policy's row of this number: 0 is its own, further ones differ from it.

    >>> variant(identity("static"), 1)
    {'color': '#d6845f', 'marker': '^', 'linestyle': '--', 'label': 'static'}
    """
    strength, marker, linestyle = _VARIANTS[number % len(_VARIANTS)]
    return Identity(
        color=tint(look["color"], strength),
        marker=marker or look["marker"],
        linestyle=linestyle or look["linestyle"],
        label=look["label"],
    )


def identities(names: Iterable[str]) -> dict[str, Identity]:
    """Return a look for each row; of several rows of one policy, the first has the policy's.

    >>> looks = identities(["static", "static (best batch, 32)", "vllm"])
    >>> [look["marker"] for look in looks.values()]
    ['s', '^', 'o']
    >>> identities(["h100: vllm"])["h100: vllm"]["color"] == identity("vllm")["color"]
    True
    """
    looks: dict[str, Identity] = {}
    policies: list[str] = []
    for name in names:
        policy = name.rpartition(": ")[2]  # without the server
        earlier = sum(other.split()[:1] == policy.split()[:1] for other in policies)
        policies.append(policy)
        looks[name] = variant(identity(policy), earlier)
        looks[name]["label"] = name
    return looks
