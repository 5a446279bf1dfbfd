"""A user's step-time model: its runs last as asked, fail, or kill their process."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from busdoor.step_time import StepTime
from busdoor.sweep import plan

WORKLOAD = {
    "input_tokens": {"type": "uniform", "low": 9, "high": 9},
    "output_tokens": {"type": "uniform", "low": 2, "high": 9},
    "num_requests": 3,
}


def probe_points(log, count, special=None, **fields):
    """Plan so many points with these fields of `Probe`; some have others, by their number."""
    model = {"name": "sweep_probe:Probe", "log": str(log), **fields}
    rows = [
        {**model, "number": number, **(special or {}).get(number, {})} for number in range(count)
    ]
    return plan(
        {"workload": WORKLOAD, "policy": "vllm", "replications": 1, "sweep": {"step_time": rows}}
    )


@dataclass
class Probe(StepTime):
    """`log`: a file that gets a line a run; `last_words`: while there, its finder is killed.

    `gate`: a file without which runs from number `gated` on do not end.
    """

    number: int = 0
    sleep_s: float = 0.0
    log: str = ""
    fails: bool = False
    last_words: str = ""
    kills: bool = False
    gate: str = ""
    gated: int = 0
    begun: bool = field(default=False, init=False)

    def line(self, batch):
        if not self.begun:
            self.begun = True
            self._begin()
        return 0.01, 0.0

    def durations_s(self, batch, repeat):
        raise NotImplementedError

    def _begin(self):
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{self.number} {os.getpid()}\n")
        time.sleep(self.sleep_s)
        while self.gate and self.number >= self.gated and not Path(self.gate).exists():
            time.sleep(0.02)
        if self.fails:
            raise RuntimeError("the probe failed")
        if self.kills or self._found():
            os.kill(os.getpid(), signal.SIGKILL)

    def _found(self):
        try:
            Path(self.last_words or "/no/words").unlink()
        except FileNotFoundError:
            return False
        return True
