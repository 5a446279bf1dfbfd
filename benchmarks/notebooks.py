"""Execute the notebooks whole and store what they compute.

    python benchmarks/notebooks.py                  # all eight, some minutes
    python benchmarks/notebooks.py 3 6              # those
    python benchmarks/notebooks.py --check          # store nothing; exit 1 where an answer has changed

Text that depends on the machine (a time, a speed) is compared only where its cell has no tag
"timing".
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_TIMEOUT_S = 600  # a cell of a whole notebook, on a busy machine
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def executed(path: Path) -> Any:
    """Return a notebook as it comes out when executed top to bottom in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    paths = [
        str(ROOT / "sim"),
        str(ROOT / "workloads"),
        str(ROOT / "notebooks"),
        os.environ.get("PYTHONPATH", ""),
    ]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "IPYTHONDIR": folder,
            "BUSDOOR_PROGRESS": "0",  # a bar would stay in the output
        }
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources
        )
        client.execute(env=env)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return notebook


def texts(notebook: Any) -> Iterator[tuple[int, str]]:
    """Yield the number of each code cell that is no timing, and the text that it shows."""
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        if "timing" not in cell.metadata.get("tags", ()):
            yield (
                number,
                "\n".join(output.get("text", "") + _plain(output) for output in cell.outputs),
            )


def _plain(output: Any) -> str:
    data = output.get("data", {})
    return (
        "" if "image/png" in data else str(data.get("text/plain", ""))
    )  # a picture's text is its size


def differences(stored: Any, computed: Any) -> list[str]:
    """Return a line for each cell whose stored text is not what is computed."""
    return [
        f"cell {number} shows {ours.strip()!r}, but computes {theirs.strip()!r}"
        for (number, ours), (_, theirs) in zip(texts(stored), texts(computed), strict=True)
        if not alike(ours, theirs)
    ]


def alike(ours: str, theirs: str) -> bool:
    """Whether two texts agree: words, whole numbers, decimals to a unit of the last digit."""
    words = [re.sub(r"\s+", "", NUMBER.sub("#", text)) for text in (ours, theirs)]
    numbers = [NUMBER.findall(text) for text in (ours, theirs)]
    return words[0] == words[1] and all(map(_near, *numbers))


def _near(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    decimals = len(ours.partition(".")[2])
    gap = abs(float(ours.replace(",", "")) - float(theirs.replace(",", "")))
    return decimals > 0 and "e" not in ours + theirs and gap < 1.5 * 10**-decimals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="which, by their numbers")
    parser.add_argument("--check", action="store_true", help="store nothing")
    options = parser.parse_args()
    os.environ.pop("BUSDOOR_FAST", None)
    wrong = 0
    for path in NOTEBOOKS:
        if options.numbers and path.name[0] not in options.numbers:
            continue
        began_s = time.monotonic()
        computed = executed(path)
        lines = differences(nbformat.read(path, as_version=4), computed)
        wrong += len(lines)
        print(
            f"{path.name}: {time.monotonic() - began_s:.0f} s, {len(lines)} answers changed",
            flush=True,
        )
        print("".join(f"  {line}\n" for line in lines), end="")
        if not options.check:
            nbformat.write(computed, path)
    return 1 if options.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
