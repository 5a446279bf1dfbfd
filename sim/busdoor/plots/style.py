"""What every figure shares: the style file, and a fixed identity for each policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib.resources import as_file, files
from io import BytesIO
from typing import TYPE_CHECKING, Literal, ParamSpec, TypedDict, TypeVar

from busdoor.core.format import duration_text
from busdoor.plots.log_ticks import write_plainly
from busdoor_workloads.given import instance

if TYPE_CHECKING:
    from matplotlib import RcParams
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")


class Identity(TypedDict):
    """How one policy looks in every figure."""

    color: str
    marker: str
    linestyle: str
    label: str


# Two families: the bus (static, dynamic, multi_bin) is warm, square and solid; the door (everything
# that admits at each iteration) is cool, round and dashed. No two colours are closer than 5 units
# of CIE lightness, so that they stay apart in greyscale; warm against cool stays apart under every
# common colour blindness. Keys are policy names without underscores.
_LOOKS: dict[str, tuple[str, str, str]] = {
    "static": ("#c4501b", "s", "-"),
    "dynamic": ("#f2b25a", "D", "-"),
    "multibin": ("#5c160d", "d", "-"),
    "vllm": ("#0b3c78", "o", "--"),
    "trtllm": ("#4a4a9c", "h", "-."),
    "prefillfirst": ("#0a6e7c", "p", (0, (5, 1))),  # type: ignore[dict-item]  # matplotlib's dash tuple
    "orca": ("#3f92c4", "8", ":"),
    "tgi": ("#58afa0", "H", (0, (3, 1, 1, 1, 1, 1))),  # type: ignore[dict-item]
    "transformers": ("#a6d5f2", "P", (0, (9, 3))),  # type: ignore[dict-item]
}
_FAMILIES = {"continuous": "vllm"}  # names that a caller may give instead of a policy's
_UNKNOWN = ("#7d8590", "o", "--")  # a user's own policy

INK = "#24292f"
"""Text, and marks that belong to no policy."""
PALE = "#afb8c1"
"""Lines in the background."""


def identity(policy_name: str) -> Identity:
    """Return colour, marker, line style and label of a policy, the same in every figure.

    Parameters
    ----------
    policy_name : str
        A policy's name, with or without underscores; anything after its first space appears in the
        label only.

    Returns
    -------
    Identity
        Keys `color`, `marker`, `linestyle` and `label`, as matplotlib's `plot` takes them. A name
        that is not a built-in policy is grey, round and dashed.

    Examples
    --------
    >>> identity("static")
    {'color': '#c4501b', 'marker': 's', 'linestyle': '-', 'label': 'static'}
    >>> identity("static (tuned)")["color"] == identity("static")["color"]
    True
    """
    base = (policy_name.split() or [""])[0].lower().replace("_", "").replace("-", "")
    color, marker, linestyle = _LOOKS.get(_FAMILIES.get(base, base), _UNKNOWN)
    return Identity(color=color, marker=marker, linestyle=linestyle, label=policy_name)


def tint(color: str, strength: float) -> str:
    """Mix a colour with white: `strength` 1 is the colour, 0 is white.

    >>> tint("#000000", 0.5)
    '#808080'
    """
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - channel)):02x}" for channel in channels)


@cache
def _rc() -> RcParams:
    from matplotlib import rc_params_from_file

    with as_file(files("busdoor.plots") / "busdoor.mplstyle") as path:
        return rc_params_from_file(path, use_default_template=False)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the style file, leaving the caller's settings as they were."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context, rcParams

        with rc_context(dict(_rc())):
            drawn = draw(*args, **kwargs)
            _write_plainly(drawn)
            interactive = rcParams["interactive"]
        # importing pyplot sets it, and a notebook's figures then show
        rcParams["interactive"] = interactive
        return drawn

    return wrapper


def _write_plainly(drawn: object) -> None:
    """Replace formulas at the ticks by plain text: the style file turns formulas off."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    for axes in drawn.axes if isinstance(drawn, Figure) else [drawn]:
        if isinstance(axes, Axes):
            write_plainly(axes)


def axes_or_new(ax: Axes | None, width_in: float = 7.0, height_in: float = 3.4) -> Axes:
    """Return the given axes, or the axes of a new figure that a notebook shows by itself."""
    if ax is not None:
        return _axes(ax)
    import matplotlib.pyplot as plt

    new: Axes = plt.subplots(figsize=(width_in, height_in), layout="constrained")[1]
    return new


def _axes(ax: Axes) -> Axes:
    from matplotlib.axes import Axes as Panel

    return instance("ax", ax, Panel, "a matplotlib Axes")


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that belongs to the caller alone."""
    from matplotlib.figure import Figure

    class Page(Figure):
        """A figure that a notebook shows as a cell's value; it would show pyplot's twice."""

        def _repr_png_(self) -> bytes:
            png = BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    return Page(figsize=(width_in, height_in), layout="constrained")


def label_durations(ax: Axes, which: Literal["x", "y"], low_s: float, high_s: float) -> None:
    """Set a logarithmic scale between round durations (above 0), with units at its ticks."""
    from matplotlib.ticker import LogLocator

    rounds = [step * 10.0**power for power in range(-9, 10) for step in (1, 2, 5)]
    begin = max(step for step in rounds if step <= low_s)
    end = min(step for step in rounds if step >= high_s and step > begin)
    ax.set(**{f"{which}scale": "log", f"{which}lim": (begin, end)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(
        LogLocator(subs=next(subs for ratio, subs in _TICKS if end / begin <= ratio))
    )
    axis.set_major_formatter(duration_text)
    axis.set_minor_formatter("")


# Which multiples of a power of ten are labelled, by the ratio that the axis spans: two to five
# labels in all.
_TICKS = ((10.0, (1, 2, 3, 5)), (30.0, (1, 2, 5)), (float("inf"), (1,)))
