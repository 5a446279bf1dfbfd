"""docs/structure.md names every module there is, and none that is not."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
PACKAGES = ["workloads/busdoor_workloads", "sim/busdoor", "gpu/busdoor_gpu"]


def section(package):
    """The words in backquotes of a package's table."""
    table = PAGE.split(f"`{package}`\n", 1)[1].split("\n## ", 1)[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    return re.findall(r"`([\w/]+)`", " ".join(cells))


def modules(package):
    """Files without underscore, and folders with something to read in them."""
    for path in (ROOT / package).iterdir():
        if path.suffix == ".py" and not path.name.startswith("_"):
            yield path.stem
        elif path.is_dir() and not path.name.startswith(("_", ".")) and any(path.glob("[!_.]*.*")):
            yield f"{path.name}/"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_every_module_once(package):
    assert sorted(section(package)) == sorted(modules(package))


def test_the_life_of_a_request_has_eight_steps():
    life = PAGE.split("## The life of a request", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^(\d)\. \*\*", life, re.MULTILINE) == list("12345678")
