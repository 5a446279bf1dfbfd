"""The house (docs/structure.md): small files, few rooms, short functions, top imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for package in ("sim", "gpu", "workloads")
    for path in sorted((ROOT / package).rglob("*.py"))
]
ROOMS = [
    path
    for path in (ROOT / "sim" / "busdoor").rglob("*")
    if path.is_dir() and any(path.glob("*.py"))
]
MAY_IMPORT_LATE = ("cli", "__init__.py")


def name(path):
    return str(path.relative_to(ROOT))


def own_lines(function):
    """Lines of a function without its signature and docstring."""
    first = function.body[1 if ast.get_docstring(function) else 0 :]
    return first[-1].end_lineno - first[0].lineno + 1 if first else 0


def late_imports(tree):
    """Imports of our own packages below the top of a module: in functions, and for types only."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node not in tree.body
            and (node.module or "").startswith("busdoor")
        ):
            yield node


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_has_one_subject_and_short_functions(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 260
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert {
        function.name: own_lines(function) for function in functions if own_lines(function) > 60
    } == {}


@pytest.mark.parametrize(
    "path", [path for path in FILES if not set(path.parts) & set(MAY_IMPORT_LATE)], ids=name
)
def test_imports_stand_at_the_top(path):
    late = [
        (node.lineno, node.module)
        for node in late_imports(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert late == []


def test_the_rooms_are_few_and_not_crowded():
    assert sum(1 for room in ROOMS if room.parent == ROOT / "sim" / "busdoor") <= 22
    files = {name(room): len(list(room.glob("[!_]*.py"))) for room in ROOMS}
    assert {room: count for room, count in files.items() if count > 22} == {}
