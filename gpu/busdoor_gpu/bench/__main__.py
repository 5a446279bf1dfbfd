"""`python -m busdoor_gpu.bench`: kernels checked and timed, then the engine; tables, a CSV, and one JSON line last."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from busdoor_gpu.bench import engine, kernels
from busdoor_gpu.device import describe_device, git_commit


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m busdoor_gpu.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes on an H100 instead of ten")
    parser.add_argument("--flex", action="store_true", help="paged FlexAttention too, which compiles for a while")
    parser.add_argument("--csv", type=Path, default=Path("busdoor-bench.csv"), help="file for all rows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)

    about = {"device": describe_device(device), "git_commit": git_commit(), "quick": options.quick}
    print(f"device: {about['device']['name']}, torch {torch.__version__}")
    ceiling, kernel_rows = kernels.run(device, options.quick, options.flex)
    print(kernels.format_rows(ceiling, kernel_rows), end="\n\n", flush=True)
    engine_rows = engine.run(device, options.quick)
    print(engine.format_rows(engine_rows), end="\n\n")

    tables = {"kernels": [asdict(row) for row in kernel_rows], "engine": [asdict(row) for row in engine_rows]}
    write_csv(tables, options.csv)
    print(f"All rows: {options.csv}")
    print(json.dumps({**about, "ceiling": asdict(ceiling), **tables}))


def write_csv(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Write all rows of all tables, the table's name first; what a table does not have is empty."""
    columns = ["table", *dict.fromkeys(key for rows in tables.values() for row in rows for key in row)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"table": name, **row} for name, rows in tables.items() for row in rows)


if __name__ == "__main__":
    main()
