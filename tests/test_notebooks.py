"""The notebooks: executed in full, committed with results, fit for a stranger to see."""

import os
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
TOOL = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "notebooks.py")))
NOTEBOOKS = TOOL.NOTEBOOKS
MACHINE = (
    "/home/",
    "/tmp/",
    f"{ROOT.parent}/",
    f"{Path.home()}/",
    "site-packages",
)  # folders of whoever ran it
MOST_BYTES = 1_500_000  # of a file: what a code host still draws
MEASURED = re.compile(
    "ttft|tpot|itl|e2e|duration|answered|measured|predicted|simulated|error|share"
)
UNIT = re.compile(r"_(s|ms|µs|%|ratio|gain)$|^gain_| \(.+\)$")  # or its kind
HURRY = os.environ.get("BUSDOOR_FAST") == "1"  # shrinks the runs, so that their numbers are others


def ids(path):
    return path.stem


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def test_there_are_eight():
    assert [path.name[0] for path in NOTEBOOKS] == list("12345678")


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_computes_what_it_shows(path):
    stored = read(path)
    try:
        computed = TOOL.executed(path)
    except CellExecutionError as error:
        pytest.fail(f"{path.name}: a cell failed\n{error}", pytrace=False)
    pictures = [
        ["image/png" in output.get("data", {}) for output in outputs(each)]
        for each in (stored, computed)
    ]
    assert pictures[0] == pictures[1]
    if not HURRY:
        assert TOOL.differences(stored, computed) == [], (
            "refresh it: python benchmarks/notebooks.py"
        )


@pytest.mark.parametrize(
    ("stored", "computed", "alike"),
    [
        ("2 GPUs", "3 GPUs", False),
        ("2 GPUs with vllm", "2 GPUs with orca", False),
        ("1,234 requests", "1,235 requests", False),
        (
            "a  4.31\nb  10",
            "a 4.32\nb 10",
            True,
        ),  # another version of numpy may round the last digit otherwise
        ("4.31", "4.33", False),
        ("4.31 and 5", "4.31", False),
    ],
)
def test_what_counts_as_the_same_answer(stored, computed, alike):
    assert TOOL.alike(stored, computed) is alike


def test_a_timing_is_compared_only_where_its_cell_is_not_marked():
    def shown(text, tags=()):
        output = nbformat.v4.new_output("stream", text=text)
        return nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_code_cell("...", outputs=[output], metadata={"tags": list(tags)})
            ]
        )

    assert TOOL.differences(shown("2 GPUs"), shown("3 GPUs")) == [
        "cell 1 shows '2 GPUs', but computes '3 GPUs'"
    ]
    assert TOOL.differences(shown("took 2 s", ["timing"]), shown("took 3 s", ["timing"])) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_is_committed_as_executed(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    wrong = [
        each
        for each in outputs(read(path))
        if each.output_type == "error" or each.get("name") == "stderr"
    ]
    assert wrong == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_is_small_and_names_no_machine(path):
    assert path.stat().st_size < MOST_BYTES
    for output in outputs(read(path)):
        shown = output.get("text", "") + "".join(
            text for kind, text in output.get("data", {}).items() if kind.startswith("text/")
        )
        assert not any(folder in shown for folder in MACHINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_column_that_has_a_unit_names_it(path):
    tables = [output.get("data", {}).get("text/html", "") for output in outputs(read(path))]
    heads = [html.partition("</thead>")[0] for html in tables if "dataframe" in html]
    columns = {name for head in heads for name in re.findall("<th>(.*?)</th>", head)}
    timed = {name for name in columns if MEASURED.search(name)}
    assert [name for name in sorted(timed) if not UNIT.search(name)] == []


@pytest.mark.notebook
def test_a_failing_cell_is_shown(tmp_path):
    """So that whoever breaks a notebook sees which line did it."""
    broken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("answer = 6 * 9\nassert answer == 42, answer")]
    )
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError) as failure:
        TOOL.executed(tmp_path / "broken.ipynb")
    assert "assert answer == 42, answer" in str(failure.value)
    assert failure.value.evalue == "54"
