"""`busdoor list` and `busdoor schema`."""

import json

import pytest

from busdoor.catalog import gpu_names, model_names
from busdoor.cli import main
from busdoor.cli.app import EXAMPLES, app
from busdoor.cli.reference.listing import KINDS
from busdoor.config.schema import config_schema
from busdoor.policies import POLICIES


@pytest.mark.parametrize(
    ("kind", "known"), [("policies", POLICIES), ("gpus", gpu_names()), ("models", model_names())]
)
def test_list_has_every_name(kind, known, capsys):
    assert main(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [next(iter(row.values())) for row in rows] == list(known)


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_a_kind_can_be_shown(kind, capsys):
    every, one = KINDS[kind]
    heads, rows = every()
    assert rows and all(len(row) == len(heads) and all(row[:2]) for row in rows)
    for row in rows:
        entry = one(row[0])
        assert all(len(cells) == len(entry.heads) for cells in entry.rows)
    assert main(["list", kind, rows[0][0]]) == 0
    assert rows[0][0] in capsys.readouterr().out


def test_a_field_is_shown_with_unit_range_default_and_words(capsys):
    main(["list", "policies", "vllm", "--json"])
    rows = {row["field"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["watermark"] == {
        "field": "watermark",
        "unit": "share",
        "values": "number, ≥ 0, < 1",
        "default": "0",
        "meaning": "Share of the blocks that an admission leaves free while others run.",
    }


def test_a_wrong_name_is_answered_with_the_nearest(capsys):
    assert main(["list", "gpus", "h1000"]) == 2
    assert "did you mean 'h100'?" in capsys.readouterr().err


def test_schema_is_written_as_it_is_printed(tmp_path, capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == config_schema()
    file = tmp_path / "busdoor.schema.json"
    assert main(["schema", "--out", str(file)]) == 0
    assert json.loads(file.read_text(encoding="utf-8")) == config_schema()
    assert f"#:schema {file}" in capsys.readouterr().out


def test_every_command_has_an_example_that_can_be_typed():
    commands = {name for name in app if not name.startswith("-")} - {"trace"}
    assert EXAMPLES.keys() == commands
    for example in EXAMPLES.values():
        for line in example.split("; "):
            app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)
