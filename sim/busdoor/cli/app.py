"""The commands, each imported only when it is called: `busdoor --help` must not wait for pandas."""

from __future__ import annotations

from cyclopts import App

from busdoor._version import __version__

app = App(
    name="busdoor",
    help="What continuous batching is worth against static batching, on your lengths, your arrivals and your GPU.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` answers it
)
COMMANDS = {
    "compare": "Run policies side by side, and say what continuous batching is worth.",
    "simulate": "Run one policy on one trace.",
    "demo": "Show the difference on five requests, in words and as a picture.",
    "plot": "Draw a saved comparison or result again.",
    "trace": "Describe, generate, convert and fetch request traces.",
}
for name, purpose in COMMANDS.items():
    app.command(f"busdoor.cli.{name}:{name}", name=name, help=purpose)
