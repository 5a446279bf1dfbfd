"""Names and labels users type: the nearest right one for a wrong one; what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator

from busdoor_workloads.nearest import nearest
from busdoor_workloads.text import FORMULA_STARTS

MOST_NAMES = 25  # that a message lists; of more, the half of that many
LONGEST_LABEL = 100  # characters: a table's row, a legend's line, and a file name on any system


def check_label(label: str) -> str:
    r"""Return a label that a terminal, a picture and a file name can carry, as it is.

    Raises ValueError if it has control characters or more than `LONGEST_LABEL`, or begins as a
    formula of a spreadsheet does.

    >>> check_label("50 $ & <b>")
    '50 $ & <b>'
    >>> check_label("a" + chr(0) + "b")
    Traceback (most recent call last):
    ValueError: 'a\x00b' has a character that cannot be shown; use letters, digits, signs and spaces
    """
    if not label.isprintable():
        raise ValueError(
            f"{label[:LONGEST_LABEL]!r} has a character that cannot be shown; use letters, "
            f"digits, signs and spaces"
        )
    if label.startswith(FORMULA_STARTS):
        raise ValueError(
            f"{label[:20]!r} begins as a formula of a spreadsheet does; begin it with a letter or "
            f"digit"
        )
    if len(label) > LONGEST_LABEL:
        raise ValueError(
            f"{label[:20]!r}... has {len(label):,} characters; use at most {LONGEST_LABEL}"
        )
    return label


Label = Annotated[str, AfterValidator(check_label)]


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error that a name is not known, with the one that was probably meant.

    `what` is what the name stands for, with its article: "a GPU".

    >>> print(unknown("a fruit", "aple", ["apple", "pear"]))
    'aple' is not a fruit; did you mean 'apple'? (known: apple, pear)
    >>> print(unknown("a fruit", "xyz", ["apple", "pear"]))
    'xyz' is not a fruit (known: apple, pear)
    >>> print(unknown("a letter", "xyz", map(chr, range(97, 97 + 26))))
    'xyz' is not a letter (known: a, b, c, d, e, f, g, h, i, j, k, l, ... and 14 more)
    """
    names = sorted(set(known))
    near = nearest(str(name), names)
    guess = f"; did you mean {near!r}?" if near else ""
    return ValueError(f"{name!r} is not {what}{guess} (known: {_shortened(names)})")


def _shortened(names: Sequence[str]) -> str:
    """Return the names in a line, the first of them where there are very many."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    shown = names[: MOST_NAMES // 2]
    return f"{', '.join(shown)}, ... and {len(names) - len(shown)} more"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Write names as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b"], "or")
    ('a', 'a, b and c', 'a or b')
    """
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
