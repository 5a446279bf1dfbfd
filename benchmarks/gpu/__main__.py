"""Check and time kernels, time the engine; write tables, CSV, and last one JSON line."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu import engine, kernels
from benchmarks.gpu.rows import format_rows
from benchmarks.gpu.timing import Deadline

from busdoor_gpu.engine.device import describe_device, git_commit

_QUICK_S, _FULL_S = 120.0, 570.0  # the full form and Python's start fit in ten minutes
_KERNELS_SHARE = 0.5  # of the time; the engine has the rest


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write what was measured, after an error or interruption too."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    seconds = options.deadline or (_QUICK_S if options.quick else _FULL_S)
    deadline = Deadline(seconds)
    about = {"device": describe_device(device), "git_commit": git_commit(), "quick": options.quick}
    print(f"device: {about['device']['name']}, torch {torch.__version__}")

    tables: dict[str, list[dict[str, Any]]] = {"kernels": [], "engine": []}
    try:
        top, rows = kernels.run(
            device, options.quick, options.flex, options.peers, Deadline(_KERNELS_SHARE * seconds)
        )
        about["ceiling"] = asdict(top)
        print(kernels.format_rows(top, _kept(rows, tables["kernels"])), end="\n\n", flush=True)
        print(
            format_rows(_kept(engine.run(device, options.quick, deadline), tables["engine"])),
            end="\n\n",
        )
        if deadline.passed:
            print(
                f"Stopped after {seconds:.0f} s: rows that had not started are missing "
                f"(--deadline)."
            )
    finally:
        write_csv(tables, options.csv)
        print(f"All rows: {options.csv}")
        print(json.dumps({**about, "stopped": deadline.passed, **tables}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two minutes on an H100 instead of ten"
    )
    parser.add_argument(
        "--deadline", type=float, metavar="S", help="seconds after which no row starts"
    )
    parser.add_argument(
        "--flex",
        action="store_true",
        help="also time paged FlexAttention, which compiles for a while",
    )
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="files of FA3, FlashInfer, vLLM's Triton kernels"
    )
    parser.add_argument(
        "--csv", type=Path, default=Path("busdoor-bench.csv"), help="file for all rows"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _kept(rows: Any, kept: list[dict[str, Any]]) -> list[Any]:
    """Return rows, adding each to `kept` once measured, with None for NaN (not in JSON)."""
    measured = []
    for row in rows:
        measured.append(row)
        kept.append(
            {k: None if isinstance(v, float) and isnan(v) else v for k, v in asdict(row).items()}
        )
    return measured


def write_csv(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Write all rows of all tables, the table's name first; missing columns are empty."""
    columns = [
        "table",
        *dict.fromkeys(key for rows in tables.values() for row in rows for key in row),
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"table": name, **row} for name, rows in tables.items() for row in rows)


if __name__ == "__main__":
    main()
