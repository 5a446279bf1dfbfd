"""The commands, each imported only when it is called: `busdoor --help` must not wait for pandas."""

from __future__ import annotations

from cyclopts import App, Parameter

from busdoor._version import __version__

app = App(
    name="busdoor",
    help="What continuous batching is worth against static batching, on your lengths, your "
    "arrivals and your GPU.",
    version=__version__,
    default_parameter=Parameter(negative=()),  # no --no-FLAG and no --empty-FLAG
    suppress_keyboard_interrupt=False,  # `main` answers it
)
COMMANDS = {
    "compare": "Compare policies on the same requests, and print what continuous batching gains.",
    "capacity": "Find the highest rate that meets an SLO, and how many GPUs a rate needs.",
    "sweep": "Run every combination of a study's values, on one machine or many.",
    "simulate": "Run one policy on one trace.",
    "calibrate": "Fit a step time to measured iterations, or to the times of measured requests.",
    "validate": "Replay measured runs in the simulator, and report its errors and their causes.",
    "demo": "Show static and continuous batching on five requests, in words and as a picture.",
    "plot": "Draw a saved comparison, capacity study or result again.",
    "report": "Write a saved study or result as one HTML page, with timelines that play.",
}
for name, purpose in COMMANDS.items():
    app.command(f"busdoor.cli.{name}:{name}", name=name, help=purpose)
SERVERS = {
    "observe": "Send a trace to a real server, and keep every time that a client can see.",
    "serve": "Serve a simulated GPU behind OpenAI's API.",
}
for name, purpose in SERVERS.items():
    app.command(f"busdoor.cli.real_servers.{name}:{name}", name=name, help=purpose)
app.command(
    "busdoor.cli.traces.commands:trace",
    name="trace",
    help="Describe, generate, convert and fetch request traces.",
)
# Of the package for hardware, which needs torch; named here, imported only when it is called.
app.command(
    "busdoor_gpu.cli.replay:replay",
    name="replay",
    help="Replay a trace on real hardware, with the same policies.",
)
app.command(
    "busdoor_gpu.cli.profile:profile",
    name="profile",
    help="Measure iterations of many shapes on hardware.",
)
app.command(
    "busdoor_gpu.cli.twin:twin",
    name="twin",
    help="Calibrate the simulator to this machine, and report its errors.",
)
app.register_install_completion_command(
    help="Install completion of commands and flags for your shell."
)
