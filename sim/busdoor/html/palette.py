"""The figures' colours as CSS variables, so that one page fits day, night and paper."""

from __future__ import annotations

import re
from colorsys import hls_to_rgb, rgb_to_hls

NIGHT_BLACK = 0.09  # lightness that white paper gets; pure black makes light text glare
NIGHT_WHITE = 0.95  # lightness that black ink gets

_VARIABLE = re.compile(r"--c([0-9a-f]{6})\b")
_HEX = re.compile(r"#([0-9a-fA-F]{6})\b")


def variable(color: str) -> str:
    """Return a colour's CSS variable.

    >>> variable("#24292f")
    'var(--c24292f)'
    """
    return f"var(--c{color.removeprefix('#').lower()})"


def with_variables(css: str) -> str:
    """Replace every colour like #24292f with its variable."""
    return _HEX.sub(lambda match: variable(match[1]), css)


def at_night(color: str) -> str:
    """Return the colour's negative: the same hue, light where it was dark.

    Differences in lightness remain, so that greyscale works at night too.

    >>> at_night("#ffffff"), at_night("#24292f"), at_night("#0b3c78")
    ('#171717', '#c8ced5', '#80b4f3')
    """
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = rgb_to_hls(red, green, blue)
    negative = NIGHT_WHITE + (NIGHT_BLACK - NIGHT_WHITE) * lightness
    return "#" + "".join(
        f"{round(255 * part):02x}" for part in hls_to_rgb(hue, negative, saturation)
    )


def definitions(page: str) -> str:
    """Return the definitions of a page's variables by day, also for print, and by night.

    >>> print(definitions("p { color: var(--cffffff) }"))
    :root { --cffffff: #ffffff; }
    @media screen and (prefers-color-scheme: dark) { :root { --cffffff: #171717; } }
    """
    colors = [f"#{name}" for name in sorted(set(_VARIABLE.findall(page)))]
    day = " ".join(f"--c{color[1:]}: {color};" for color in colors)
    night = " ".join(f"--c{color[1:]}: {at_night(color)};" for color in colors)
    return (
        f":root {{ {day} }}\n@media screen and (prefers-color-scheme: dark) "
        f"{{ :root {{ {night} }} }}"
    )
