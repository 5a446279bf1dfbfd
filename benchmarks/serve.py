"""How far latencies of `busdoor serve` are from simulated ones: by a raw socket, and by observe.

    python benchmarks/serve.py --out FILE

Starts the server as a child (an H100 of the catalogue, Llama-3.1-8B, vLLM with its front end), sends
the same requests by plain sockets and by `busdoor.observe`, and simulates them. Bars: medians of
TTFT and ITL within 1 ms + 1 % of the simulated. Takes two minutes on a quiet machine; run by run
another server, so that none finds an earlier one's prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.core.json import write_json
from busdoor.metrics.itl import token_gaps, weighted_percentile
from busdoor.observe.api import observe
from busdoor.observe.load import sleep_until
from busdoor_workloads import Trace

SERVER = {"gpu": "h100", "model": "llama-3.1-8b", "policy": "vllm"}
BAR_MS, BAR_SHARE = 1.0, 0.01


def drawn(seed: int, number: int, rate: float) -> Trace:
    """Draw prompts of 50 to 500 and answers of 2 to 80 tokens, as a Poisson process."""
    rng = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, number)),
        input_tokens=rng.integers(50, 501, number),
        output_tokens=rng.integers(2, 81, number),
    )


@contextmanager
def serving() -> Iterator[str]:
    """Run `busdoor serve` in a process of its own."""
    flags = [f"--{key}={value}" for key, value in SERVER.items()]
    command = [sys.executable, "-m", "busdoor", "serve", *flags, "--port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


async def ask(url: str, row: int, trace: Trace, due_s: float, times: list[list[float]]) -> None:
    """Send a request over a socket of its own, and note when each token arrived."""
    place, clock = urlsplit(url), asyncio.get_running_loop().time
    tokens = np.random.default_rng([7, row]).integers(100, 4000, trace.input_tokens[row]).tolist()
    asked = {"model": SERVER["model"], "prompt": tokens, "stream": True}
    body = json.dumps(asked | {"max_tokens": int(trace.output_tokens[row])}).encode()
    await sleep_until(due_s)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: local\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async for line in reader:
        if b'"choices"' in line:
            times[row].append(clock() - due_s)
        if b"[DONE]" in line:
            break
    writer.close()


async def by_sockets(url: str, trace: Trace) -> list[list[float]]:
    """Send a whole trace; return each request's times of tokens, from when it was due."""
    times: list[list[float]] = [[] for _ in range(len(trace))]
    start_s = asyncio.get_running_loop().time() + 0.5
    due = start_s + trace.arrival_s
    await asyncio.gather(*(ask(url, row, trace, due[row], times) for row in range(len(trace))))
    return times


def figures(ttft_s: Any, gaps_s: Any, weights: Any = None) -> dict[str, float]:
    """Return medians and 99th percentiles, in milliseconds."""
    weights = np.ones(len(gaps_s), dtype=int) if weights is None else weights
    found = {}
    for name, at in (("p50", 50), ("p99", 99)):
        found[f"ttft_{name}_ms"] = 1e3 * float(np.percentile(ttft_s, at))
        found[f"itl_{name}_ms"] = 1e3 * weighted_percentile(gaps_s, weights, at)
    return found


def compared(trace: Trace) -> dict[str, dict[str, float]]:
    """Return the figures of one trace: simulated, by sockets, by observe."""
    card = {"name": SERVER["gpu"], "model": SERVER["model"]}
    config = Config.from_table({"gpu": card, "policy": SERVER["policy"]})
    simulated = run(config, config.policies[0], trace, limits_for(config, [trace]))
    with serving() as url:
        raw = asyncio.run(by_sockets(url, trace))
    with serving() as url:
        seen = observe(url, trace).result
    return {
        "simulated": figures(simulated.latencies["ttft"], *token_gaps(simulated.iterations)),
        "sockets": figures([one[0] for one in raw], np.concatenate([np.diff(one) for one in raw])),
        "observe": figures(seen.latencies["ttft"], np.array(seen.meta["itls_s"])),
    }


def main() -> None:
    """Compare at two rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[4.0, 16.0])
    parser.add_argument("--num-requests", type=int, default=150)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(sys.path))
    answer = {}
    for rate in given.rates:
        found = compared(drawn(int(rate), given.num_requests, rate))
        for name in ("sockets", "observe"):
            for key in ("ttft_p50_ms", "itl_p50_ms"):
                true = found["simulated"][key]
                late = found[name][key] - true
                met = abs(late) <= BAR_MS + BAR_SHARE * true
                print(f"{rate:g}/s {name} {key}: {true:.2f} {late:+.2f} ms {'✓' if met else '✗'}")
        answer[f"{rate:g}"] = found
    if given.out:
        write_json(given.out, answer)


if __name__ == "__main__":
    main()
