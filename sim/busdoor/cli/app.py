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
# Of every command: what it is for.
COMMANDS = {
    "compare": "Compare policies on the same requests, and print what continuous batching gains.",
    "capacity": "Find the highest rate that meets an SLO, and how many GPUs a rate needs.",
    "recommend": "Find the GPUs, settings and router that meet an SLO at the least cost.",
    "sweep": "Run every combination of a study's values, on one machine or many.",
    "simulate": "Run one policy on one trace.",
    "calibrate": "Fit a step time to measured iterations, or to the times of measured requests.",
    "validate": "Replay measured runs in the simulator, and report its errors and their causes.",
    "demo": "Show static and continuous batching on five requests, in words and as a picture.",
    "plot": "Draw a saved comparison, capacity study or result again.",
    "report": "Write a saved study or result as one HTML page, with timelines that play.",
}
# What to type, as `--help` and the site show it.
EXAMPLES = {
    "compare": "busdoor compare --workload trace.csv --rate 40 --gpu h200 --model qwen3-32b",
    "capacity": "busdoor capacity --slo ttft_p99=2s --slo tpot_p99=100ms --policy vllm",
    "recommend": "busdoor recommend --workload azure-conv --rate 40 --slo ttft_p99=2s --gpu h100 --gpu l40s",
    "sweep": "busdoor sweep study.toml --jobs 4",
    "simulate": "busdoor simulate azure-conv --policy vllm --rate 12 --num-requests 500 --out run",
    "calibrate": "busdoor calibrate profile --out mine.toml",
    "validate": "busdoor validate runs/* --step-time mine.toml",
    "demo": "busdoor demo --out demo",
    "plot": "busdoor plot busdoor-compare-001",
    "report": "busdoor report busdoor-compare-001 --out report.html",
    "observe": "busdoor observe http://127.0.0.1:8000 --workload azure-conv --rate 2 --out seen",
    "serve": "busdoor serve --gpu h100 --model llama-3.1-8b --policy vllm --port 8000",
    "replay": "busdoor replay trace.jsonl --model llama-3.1-8b --out replay",
    "profile": "busdoor profile --model llama-3.1-8b --budget 3min --out profile",
    "twin": "busdoor twin --out twin",
    "list": "busdoor list gpus; busdoor list policies vllm",
    "schema": "busdoor schema --out busdoor.schema.json",
}


def _add(name: str, path: str, purpose: str) -> None:
    example = f"Example: {EXAMPLES[name]}" if name in EXAMPLES else ""
    app.command(path, name=name, help=purpose, help_epilogue=example)


for name, purpose in COMMANDS.items():
    _add(name, f"busdoor.cli.{name}:{name}", purpose)
SERVERS = {
    "observe": "Send a trace to a real server, and keep every time that a client can see.",
    "serve": "Serve a simulated GPU behind OpenAI's API.",
}
for name, purpose in SERVERS.items():
    _add(name, f"busdoor.cli.real_servers.{name}:{name}", purpose)
_REFERENCE = "busdoor.cli.reference.commands"
_add("list", f"{_REFERENCE}:list_names", "List policies, workloads, GPUs, models ..., or show one.")
_add("schema", f"{_REFERENCE}:schema", "Print the JSON Schema of the TOML files, for editors.")
app.command(
    "busdoor.cli.traces.commands:trace",
    name="trace",
    help="Describe, generate, convert and fetch request traces.",
)
# Of the package for hardware, which needs torch; named here, imported only when it is called.
HARDWARE = {
    "replay": "Replay a trace on real hardware, with the same policies.",
    "profile": "Measure iterations of many shapes on hardware.",
    "twin": "Calibrate the simulator to this machine, and report its errors.",
}
for name, purpose in HARDWARE.items():
    _add(name, f"busdoor_gpu.cli.{name}:{name}", purpose)
app.register_install_completion_command(
    help="Install completion of commands and flags for your shell."
)
