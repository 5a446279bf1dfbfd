"""The notebooks: executed from top to bottom, and committed with outputs that a stranger may see."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE = ("/home/", "/tmp/", f"{ROOT.parent}/", f"{Path.home()}/", "site-packages")  # folders of whoever ran it
MOST_BYTES = 1_500_000  # of a file: what a code host still draws
CELL_TIMEOUT_S = 120  # what a whole notebook may take on two cores


def ids(path):
    return path.stem


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def run(notebook, folder):
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources).execute()


@pytest.fixture
def in_a_hurry(monkeypatch, tmp_path):
    """Shrink runs, unless somebody asks for whole ones; find the packages; leave the user's IPython alone."""
    monkeypatch.setenv("BUSDOOR_FAST", os.environ.get("BUSDOOR_FAST", "1"))
    paths = [str(ROOT / "sim"), str(ROOT / "workloads"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))


def test_there_are_six():
    assert [path.name[0] for path in NOTEBOOKS] == list("123456")


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_runs_from_top_to_bottom(path, in_a_hurry, tmp_path):
    notebook = read(path)
    try:
        run(notebook, tmp_path)
    except CellExecutionError as error:
        pytest.fail(f"{path.name}: a cell failed\n{error}", pytrace=False)
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    committed = [output for output in outputs(read(path)) if "image/png" in output.get("data", {})]
    assert len(pictures) == len(committed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_is_committed_as_executed(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    wrong = [each for each in outputs(read(path)) if each.output_type == "error" or each.get("name") == "stderr"]
    assert wrong == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_it_is_small_and_names_no_machine(path):
    assert path.stat().st_size < MOST_BYTES
    for output in outputs(read(path)):
        shown = output.get("text", "") + "".join(
            text for kind, text in output.get("data", {}).items() if kind.startswith("text/")
        )
        assert not any(folder in shown for folder in MACHINE)


@pytest.mark.notebook
def test_a_failing_cell_is_shown(tmp_path, in_a_hurry):
    """So that whoever breaks a notebook sees which line did it."""
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("answer = 6 * 9\nassert answer == 42, answer")])
    with pytest.raises(CellExecutionError) as failure:
        run(broken, tmp_path)
    assert "assert answer == 42, answer" in str(failure.value)
    assert failure.value.evalue == "54"
