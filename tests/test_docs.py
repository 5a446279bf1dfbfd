"""docs/structure.md names exactly the rooms there are; what pages say to type exists."""

import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from busdoor.cli import app
from busdoor.config import Config
from busdoor.config.recommend import parse_recommend
from busdoor.sweep import plan

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
PACKAGES = ["workloads/busdoor_workloads", "sim/busdoor", "gpu/busdoor_gpu"]


def section(package):
    """The names before the words in the lines of a package's block."""
    block = PAGE.split(f"`{package}`\n", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    return [
        name
        for line in block.splitlines()
        for name in re.split(r"\s{2,}", line, maxsplit=1)[0].split(", ")
    ]


def modules(package):
    """Files without underscore, and folders with something to read in them."""
    for path in (ROOT / package).iterdir():
        if path.suffix == ".py" and not path.name.startswith("_"):
            yield path.stem
        elif path.is_dir() and not path.name.startswith(("_", ".")) and any(path.glob("[!_.]*.*")):
            yield f"{path.name}/"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_every_room_once(package):
    assert sorted(section(package)) == sorted(modules(package))


def test_the_life_of_a_request_has_eight_steps():
    life = PAGE.split("## The life of a request", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^(\d)\. \*\*", life, re.MULTILINE) == list("12345678")


def toml_blocks():
    """Yield every TOML block of the README and the pages, by where it stands."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for number, block in enumerate(
            re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
        ):
            yield pytest.param(block, id=f"{path.name}-{number}")


@pytest.mark.parametrize("block", list(toml_blocks()))
def test_the_pages_configurations_are_ones(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = '{"arrival_s": 0.0, "input_tokens": 9, "output_tokens": 5}\n'
    Path("mine.csv").write_text("time,prompt_len,answer_len\n0,9,5\n", encoding="utf-8")
    Path("mine.jsonl").write_text(row, encoding="utf-8")  # which the quick start has made
    if 'name = "operators"' in block and find_spec("aiconfigurator_core") is None:
        pytest.skip("needs aiconfigurator-core: pip install 'busdoor[operators]'")
    table = tomllib.loads(block)
    if "sweep" in table:
        assert not [point.error for point in plan(table) if point.error]
    elif "recommend" in table:
        parse_recommend(table["recommend"])
    else:
        Config.from_table(table)


def commands():
    """Return every busdoor command in shell blocks of README and pages, without comments."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for block in re.findall(
            r"^```bash\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M
        ):
            lines = (
                line.partition(" #")[0].strip() for line in block.replace("\\\n", " ").splitlines()
            )
            found += [line for line in lines if line.startswith("busdoor ")]
    return found


@pytest.mark.parametrize("command", commands())
def test_the_pages_commands_are_ones(command):
    """Their names and flags exist; what they compute is others' test."""
    words = shlex.split(command)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_the_files_to_open_are_there():
    """What the page names for a task is a file, but for those that are still to be written."""
    table = PAGE.split("## To change something", 1)[1]
    names = {name for name in re.findall(r"`([a-z_/]+\.(?:py|toml))`", table) if "NAME" not in name}
    roots = [ROOT / package for package in PACKAGES]
    assert [
        name for name in sorted(names) if not any((root / name).exists() for root in roots)
    ] == []


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
