"""Suggestion of the nearest known name for a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Similarity (difflib) below which a guess is more often wrong than right: `p90` is near `p99`
# (0.67), but gemma-3-12b is not llama-3.2-1b (0.61), and gpt-oss-120b not opt-13b (0.53).
_CUTOFF = 0.66
# letters of a word that may stand for a longer name which it is a part of, as rate for request_rate
_SHORTEST_PART = 3


def nearest(word: object, names: Iterable[str]) -> str | None:
    """Return the most probable name for a mistyped word; None if no name is near.

    >>> nearest("lognorml", ["fixed", "lognormal"]), nearest("rate", ["request_rate", "seed"])
    ('lognormal', 'request_rate')
    >>> nearest("gpt-oss-120b", ["opt-13b", "qwen3-8b"]) is None
    True
    """
    known = {name.lower(): name for name in sorted(names, reverse=True)}
    typed = str(word).lower()
    near = get_close_matches(typed, sorted(known), n=1, cutoff=_CUTOFF)
    parts = [name for name in sorted(known) if len(typed) >= _SHORTEST_PART and typed in name]
    return next((known[name] for name in near or parts), None)


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """Return the names that the user may have meant, as the second half of a sentence.

    All names if none is near.

    >>> did_you_mean("lognorml", ["fixed", "lognormal"])
    "did you mean 'lognormal'?"
    >>> did_you_mean("xyz", ["fixed", "lognormal"])
    'it is one of fixed, lognormal'
    """
    known = sorted(names)
    guess = nearest(word, known)
    return f"did you mean {guess!r}?" if guess else f"it is one of {', '.join(known)}"
