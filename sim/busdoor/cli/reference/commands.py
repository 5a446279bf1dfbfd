"""`busdoor list` and `busdoor schema`: what there is by name, and what a configuration may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from busdoor.cli.flags import Json

Kind = Literal[
    "policies", "workloads", "gpus", "models", "engines", "step-times", "slos", "routers"
]


def list_names(kind: Kind, name: str | None = None, /, *, json: Json = False) -> int:
    """Print what there is of a kind, or all about one of them.

    Parameters
    ----------
    kind
        What to list.
    name
        One of them: its fields with units, ranges and defaults, or its values with their sources.
    """
    from rich.console import Console

    from busdoor.cli.output import output
    from busdoor.cli.reference.listing import KINDS
    from busdoor.cli.render import print_lines, ruled

    every, one = KINDS[kind]
    with output(json) as answer:
        if name is None:
            heads, rows = every()
        else:
            name, about, heads, rows = one(name)
            print_lines(Console(), [f"{name}. {about}" if about else name, ""])
        if rows:
            Console().print(ruled(heads, rows))
        answer(lambda: [dict(zip(heads, row, strict=True)) for row in rows])
    return 0


def schema(*, out: Path | None = None) -> int:
    """Print the JSON Schema of the TOML files, by which editors complete and check them.

    A first line `#:schema busdoor.schema.json` points Even Better TOML (VS Code) and taplo to it.

    Parameters
    ----------
    out
        File for it, in place of stdout.
    """
    from json import dumps

    from busdoor.config.schema import config_schema
    from busdoor.core.study_paths import check_file

    text = dumps(config_schema(), indent=1, ensure_ascii=False)
    if out is None:
        print(text)
        return 0
    check_file(out, "--out")
    out.write_text(f"{text}\n", encoding="utf-8")
    print(f"Begin a TOML file with: #:schema {out}")
    return 0
