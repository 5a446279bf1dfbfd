"""Answer a mistyped name with the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# difflib's own default cutoff; below it a suggestion is more often wrong than right.
_CUTOFF = 0.6


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Say which of `names` the user may have meant, as the second half of a sentence.

    Parameters
    ----------
    word : str
        What the user wrote.
    names : iterable of str
        What would have been right.

    Returns
    -------
    str
        ``did you mean 'NAME'?``, or the list of all names where none is near.

    Examples
    --------
    >>> did_you_mean("lognorml", ["fixed", "lognormal"])
    "did you mean 'lognormal'?"
    >>> did_you_mean("xyz", ["fixed", "lognormal"])
    'it is one of fixed, lognormal'
    """
    known = sorted(names)
    near = get_close_matches(word.lower(), known, n=1, cutoff=_CUTOFF) or [name for name in known if word in name]
    return f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(known)}"
