"""The benchmark's one command, at toy sizes."""

from __future__ import annotations

import csv
import json

import pytest

pytest.importorskip("torch")

from busdoor_gpu.bench.__main__ import main


def test_it_prints_tables_and_ends_with_a_line_of_json(tmp_path, capsys):
    main(["--quick", "--device", "cpu", "--csv", str(tmp_path / "rows.csv")])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(told["kernels"]) + len(told["engine"])
    assert {row["table"] for row in rows} == {"kernels", "engine"}
    continuous, static, dataset = told["engine"][-3:]
    assert continuous["bubbles"] == 0 < static["bubbles"] <= dataset["bubbles"]
    assert continuous["padding"] == 0 < static["padding"]
