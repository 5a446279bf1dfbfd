"""Run the week of docs/long-runs.md as its reader would; print time and memory, draw its picture.

python benchmarks/week.py [--hours 24] [--jobs 2] [--out week]     (Linux: memory is read from /proc)
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from busdoor.core.compiled import is_compiled

DOCS = Path(__file__).parents[1] / "docs"
LOOK_EVERY_S = 1.0
WEEK_HOURS = 168


def main() -> None:
    """Run it, and print wall time, CPU and the peak of all processes' memory together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=WEEK_HOURS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the result in this folder")
    given = parser.parse_args()
    page = (DOCS / "long-runs.md").read_text(encoding="utf-8")
    toml = re.search(r"^```toml\n(.*?)^```", page, re.S | re.M)
    assert toml is not None
    with tempfile.TemporaryDirectory() as folder:
        study, out = Path(folder) / "week.toml", given.out or Path(folder) / "week"
        study.write_text(toml[1].replace("604800", str(round(3600 * given.hours))))
        began_s = time.monotonic()
        command = [sys.executable, "-m", "busdoor", "simulate", study, "--out", out, "--stream"]
        run = subprocess.Popen([*command, "--jobs", str(given.jobs)])
        peak_bytes = watch(run)
        wall_s = time.monotonic() - began_s
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{given.hours:g} hours, {given.jobs} processes, compiled: {is_compiled()}; "
            f"wall {wall_s:.0f} s, CPU {used.ru_utime + used.ru_stime:.0f} s, "
            f"memory {peak_bytes / 2**20:.0f} MiB, exit {run.returncode}"
        )
        if run.returncode == 0:
            draw(out, given.hours == WEEK_HOURS)


def watch(run: subprocess.Popen[bytes]) -> int:
    """Return the most bytes that a process and its children had at once, shared ones counted once."""
    peak = 0
    while run.poll() is None:
        peak = max(peak, sum(map(_bytes, _family(run.pid))))
        time.sleep(LOOK_EVERY_S)
    return peak


def draw(folder: Path, whole: bool) -> None:
    """Draw the hours; those of the whole week are the documentation's picture."""
    from busdoor.plots import save_figure
    from busdoor.results.hourly import HourlyResult

    result = HourlyResult.load(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    print(f"{result.meta['num_requests']:,} requests, {size / 1e9:.2f} GB of Parquet")
    with tempfile.TemporaryDirectory() as made:
        png, _ = save_figure(result.plot_hours(), Path(made) / "week")
        target = DOCS / "images" / "week.png" if whole else folder / "week.png"
        target.write_bytes(png.read_bytes())
        print(target)


def _family(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return [pid, *(one for child in children for one in _family(child))]


def _bytes(pid: int) -> int:
    """Return a process's memory, its part of what it shares (PSS)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+)", text, re.M)
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    main()
