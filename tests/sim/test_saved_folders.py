"""What is read from a folder is data: no import of what it names; errors are sentences."""

import json
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from busdoor import compare
from busdoor.calibration.teacher_forcing import policy_of, trace_of
from busdoor.cli import main
from busdoor.core.saved import read_csv, write_csv
from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.results.result import Result

ANY = Path(__file__).parents[1] / "cases" / "02-any.csv"
JOB = {"input_tokens": 20, "output_tokens": {"type": "uniform", "low": 2, "high": 9}}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A saved comparison, which nobody changes."""
    job = {**JOB, "request_rate": 5.0, "num_requests": 12}
    made = compare(
        job, ["static", "vllm"], replications=2, cluster={"replicas": 2}, kv={"num_blocks": 400}
    )
    return made.save(tmp_path_factory.mktemp("saved") / "comparison")


@pytest.fixture
def saved(comparison, tmp_path):
    """Copy the comparison to where it may be changed."""
    return copytree(comparison, tmp_path / "saved")


def change(file, **changes):
    """Replace values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("command", ["report", "plot"])
def test_nothing_that_a_folder_names_is_called(saved, tmp_path, command, capsys):
    """The case 01_report_runs_code ran `touch`."""
    config = json.loads((saved / "comparison.json").read_text())["config"]
    touch = {"name": "subprocess:Popen", "args": ["touch", str(tmp_path / "ran")]}
    config["policy"][1] = {**touch, "label": "vllm"}
    config["step_time"] = touch
    config["cluster"]["router"] = touch
    change(saved / "comparison.json", config=config)
    assert main([command, str(saved)]) == 0, capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    if command == "report":
        assert "subprocess:Popen" in (saved / "report.html").read_text(encoding="utf-8")


def test_a_measured_runs_policy_is_not_imported():
    result = Result.example()
    meta = {
        **result.meta,
        "policy_config": {"name": "subprocess:Popen", "args": ["true"]},
        "max_model_len": 512,
    }
    with pytest.raises(
        ValueError, match="named by a saved folder, from which nothing is imported; name it with"
    ):
        policy_of(meta, trace_of(result))


def assert_a_sentence(command, folder, capsys):
    """Run a command on a folder that is wrong, and return what it says."""
    capsys.readouterr()
    code = main([command, str(folder)])
    err = capsys.readouterr().err
    assert code == 2, f"{command} took it"
    assert err.startswith("busdoor: ") and err.count("\n") == 1 and len(err) < 500
    return err


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A saved result with CSV tables, which nobody changes."""
    return Result.example().save(tmp_path_factory.mktemp("saved") / "result", csv=True)


REQUESTS, ITERATIONS, STAYS = (
    list(columns) for columns in (REQUEST_COLUMNS, ITERATION_COLUMNS, STAY_COLUMNS)
)
COLUMNS = [
    *(("requests", column) for column in (*REQUESTS, "status")),
    *(("iterations", column) for column in (*ITERATIONS, "replica")),
    *(("stays", column) for column in (*STAYS, "slot", "replica")),
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_result_without_a_column_or_with_another_type_in_it(
    result, tmp_path, capsys, table, column
):
    folder = copytree(result, tmp_path / "saved")
    file = folder / f"{table}.csv"
    frame = pd.read_csv(file)
    frame.drop(columns=column).to_csv(file, index=False)
    assert f"{table} has no column {column}" in assert_a_sentence("report", folder, capsys)
    wrong = frame[column].astype(object)
    wrong.iloc[0] = 5 if column == "status" else "five"
    if column == "status":
        wrong[:] = 5
    frame.assign(**{column: wrong}).to_csv(file, index=False)
    assert f"{table}, row 1: {column} is " in assert_a_sentence("plot", folder, capsys)


@pytest.mark.parametrize("table", ["requests", "iterations", "stays"])
@pytest.mark.parametrize("how", ["truncated", "doubled", "cut", "gone", "empty"])
def test_a_result_whose_table_has_not_all_its_rows(result, tmp_path, capsys, table, how):
    folder = copytree(result, tmp_path / "saved")
    file = folder / f"{table}.csv"
    lines = file.read_text().splitlines(keepends=True)
    if how == "gone":
        file.unlink()
    else:
        texts = {
            "truncated": lines[:-1],
            "doubled": [*lines, *lines[1:]],
            "cut": [*lines[:-1], '"'],
            "empty": [],
        }
        file.write_text("".join(texts[how]))
    assert table in assert_a_sentence("report", folder, capsys)


def test_a_result_of_two_studies_is_refused(result, tmp_path, capsys):
    """Case 06_stale_out C: tables of Pythons with and without pyarrow, in one folder."""
    folder = copytree(result, tmp_path / "saved")
    pd.read_csv(folder / "stays.csv").to_parquet(folder / "stays.parquet")
    assert "has both stays.parquet and stays.csv" in assert_a_sentence("report", folder, capsys)


WRONG = [1e300, -5.5, "text", [], {}, True, None]
META = [
    "policy",
    "num_slots",
    "num_blocks",
    "block_size",
    "policy_config",
    "streams",
    "trace",
    "slo",
    "replicas",
]


@pytest.mark.parametrize(
    "key", [*META, "rows", "num_requests", "config", "versions", "offered_load"]
)
def test_a_result_with_another_type_in_meta(result, tmp_path, capsys, key):
    """Nothing but a sentence, or a page where the value will do; never a traceback."""
    folder = copytree(result, tmp_path / "saved")
    for value in WRONG:
        change(folder / "meta.json", **{key: value})
        capsys.readouterr()
        code = main(["report", str(folder)])
        err = capsys.readouterr().err
        assert code in (0, 2) and err.count("\n") == (code == 2), (value, err)
        if code == 2:
            assert (
                f"meta.json: {key} is" in err
                or "meta.json says" in err
                or "does not hold together" in err
            )
        if value == -5.5 and key in META:
            assert code == 2


@pytest.mark.parametrize("table", ["replications", "capacities"])
def test_a_comparison_whose_tables_do_not_fit_it(saved, capsys, table):
    file = saved / f"{table}.csv"
    lines = file.read_text().splitlines(keepends=True)
    for text in (
        lines[:1],
        lines[:-1],
        [lines[0].replace("output_throughput", "x"), *lines[1:]],
        ["a,b\n"],
        [],
    ):
        file.write_text("".join(text))
        assert f"{table}.csv" in assert_a_sentence("report", saved, capsys)
    file.write_text(lines[0] + lines[1].replace(",0,", ",zero,", 1) + "".join(lines[2:]))
    assert f"{table}.csv, row 1: replication is 'zero'" in assert_a_sentence(
        "report", saved, capsys
    )


@pytest.mark.parametrize("key", ["policies", "results", "config"])
def test_a_comparison_with_another_type_in_its_json(saved, capsys, key):
    for value in WRONG:
        change(saved / "comparison.json", **{key: value})
        if (key, value) != ("config", {}):  # everything in it has a default
            assert "comparison.json" in assert_a_sentence("report", saved, capsys)
    (saved / "comparison.json").write_text('{"verdict": "cut o')
    assert "comparison.json, line 1: no JSON" in assert_a_sentence("plot", saved, capsys)


def test_a_capacity_study_that_was_changed(tmp_path, capsys):
    from busdoor.capacity import capacity

    found = capacity(
        "azure-conv", ["vllm"], "e2e_p99=8s", num_requests=60, replications=3, tolerance=0.3
    )
    folder = found.save(tmp_path / "capacity")
    about = json.loads((folder / "capacity.json").read_text())
    assert main(["report", str(folder)]) == 0
    for key in (
        "verdict",
        "slo",
        "slo_text",
        "policies",
        "replications",
        "num_runs",
        "num_requests",
        "config",
    ):
        (folder / "capacity.json").write_text(
            json.dumps({name: about[name] for name in about if name != key})
        )
        assert f"has no {key}" in assert_a_sentence("report", folder, capsys)
    for row in (1e300, {**about["policies"]["vllm"], "request_rate": "many"}, {"low": 1.0}):
        change(folder / "capacity.json", **{**about, "policies": {"vllm": row}})
        assert "policies.vllm" in assert_a_sentence("report", folder, capsys)
    change(folder / "capacity.json", **about)
    points = pd.read_csv(folder / "points.csv")
    for column in ("policy", "request_rate", "target", "value"):
        points.drop(columns=column).to_csv(folder / "points.csv", index=False)
        assert f"points.csv has no column {column}" in assert_a_sentence("plot", folder, capsys)
    points[:-1].to_csv(folder / "points.csv", index=False)
    assert "capacity.json says" in assert_a_sentence("plot", folder, capsys)


def test_a_text_that_looks_like_a_formula_is_none_in_a_table_and_comes_back(tmp_path):
    texts = ["=cmd|'/c calc'!A0", "@SUM(A1)", "-1+2", "+1", "'=quoted", "vllm", None]
    table = pd.DataFrame(
        {"text": texts, "number": [-1.5, *range(6)]},
        index=pd.Index([*texts[:-1], "x"], name="policy"),
    )
    write_csv(table, tmp_path / "t.csv")
    cells = [
        cell for line in (tmp_path / "t.csv").read_text().splitlines() for cell in line.split(",")
    ]
    assert not [cell for cell in cells if cell[:1] in tuple("=+@") or cell.startswith("-1+")]
    assert read_csv(tmp_path / "t.csv", index_col="policy")["text"].dropna().tolist() == texts[:-1]
    assert read_csv(tmp_path / "t.csv")["policy"].tolist() == table.index.tolist()


def refuse_constant(text):
    raise AssertionError(f"{text} is no JSON")


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_every_json_is_valid(tmp_path, capsys, command):
    """Case 02-any, whose requests give no TPOT: NaN, infinity are null in files, on stdout."""
    flags = {
        "simulate": [str(ANY)],
        "compare": ["--workload", str(ANY), "--replications", "1", "--policy", "static"],
    }
    out = tmp_path / "o"
    assert (
        main(
            [
                command,
                *flags[command],
                "--out",
                str(out),
                "--json",
                "--perfetto",
                str(tmp_path / "p.json"),
            ]
        )
        == 0
    )
    files = [*out.rglob("*.json"), tmp_path / "p.json"]
    assert len(files) >= 3
    for text in (capsys.readouterr().out, *(file.read_text(encoding="utf-8") for file in files)):
        json.loads(text, parse_constant=refuse_constant)


def test_a_validation_that_was_changed(tmp_path, capsys):
    from busdoor.comparison.demo import introductory_scenario
    from busdoor.step_time.linear import LinearStepTime
    from busdoor.validation import validate

    run = introductory_scenario().continuous
    folder = validate([run], LinearStepTime(base_s=1.1), ["run"]).save(tmp_path / "validation")
    about = json.loads((folder / "validation.json").read_text())
    assert main(["report", str(folder)]) == 0
    for key in ("runs", "step_time", "about"):
        for value in WRONG:
            change(folder / "validation.json", **{**about, key: value})
            if value != {}:
                assert f"validation.json: {key} is" in assert_a_sentence("report", folder, capsys)
    for key in ("whole_batches", "load", "step_time", "batches", "budget"):
        run = {name: value for name, value in about["runs"]["run"].items() if name != key}
        change(folder / "validation.json", **{**about, "runs": {"run": run}})
        assert f"runs.run has no {key}" in assert_a_sentence("report", folder, capsys)
    change(
        folder / "validation.json",
        **{**about, "step_time": {"name": "subprocess:Popen", "args": ["false"]}},
    )
    assert "from which nothing is imported" in assert_a_sentence("report", folder, capsys)
    change(folder / "validation.json", **about)
    (folder / "run.csv").write_text("a,b\n")
    assert_a_sentence("report", folder, capsys)
