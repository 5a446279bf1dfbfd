"""What the site says by itself: reference, examples of policies, notebooks, and llms.txt.

mkdocs calls these functions (`hooks` in mkdocs.yml). Everything is made of the code when the site
is built; nothing is downloaded.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from busdoor import Result
from busdoor.cli.app import app
from busdoor.cli.reference.listing import FIELD_HEADS, KINDS, field_rows
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.config.schema import config_schema
from busdoor.policies import POLICIES
from busdoor_workloads import Trace

ROOT = Path(__file__).parents[1]
mpl.use("Agg")
# Eight requests in four slots: what each policy does with them can be seen at a glance.
TRACE = Trace(
    arrival_s=[0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.35, 0.5],
    input_tokens=[32, 96, 16, 64, 80, 24, 48, 16],
    output_tokens=[20, 60, 12, 34, 8, 40, 6, 26],
)
EXAMPLE = {
    "kv": {"num_blocks": 60, "max_model_len": 256},
    "step_time": {"name": "linear", "base_s": 0.01, "per_token_s": 2e-4},
    "lookahead": 0,
}
# Own fields, so that the example has room for what the policy is about.
SETTINGS: dict[str, dict[str, Any]] = {
    "static": {"batch_size": 4},
    "dynamic": {"batch_size": 4},
    "multi_bin": {"batch_size": 4, "num_bins": 2},
    "orca": {"reservation": "oracle"},
    "vllm": {"max_num_batched_tokens": 64},
    "prefill_first": {"max_num_batched_tokens": 128},
    "tgi": {"max_waiting_tokens": 8},
    "trtllm": {"max_num_tokens": 64},
    "transformers": {"max_num_batched_tokens": 64},
}


def on_config(config: Any) -> Any:
    """Put pages that the menu does not name at the end of the guides."""
    named = {
        path
        for section in config["nav"]
        for name in section.values()
        for _, path in _flat("", name)
    }
    pages = (path.name for path in sorted((ROOT / "docs").glob("*.md")))
    guides = next(section["Guides"] for section in config["nav"] if "Guides" in section)
    guides += [page for page in pages if page not in named]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and pictures."""
    from mkdocs.structure.files import File

    made: dict[str, str | bytes] = {
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/busdoor.schema.json": json.dumps(config_schema(), indent=1),
        "reference/names.md": names_page(),
    }
    made |= {f"policies/{name}.svg": example_picture(name) for name in POLICIES}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        made |= notebook_pages(notebook)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the marks `<!-- fields: NAME -->`, `<!-- list: KIND -->` and `<!-- example: NAME -->`."""
    markdown = re.sub(r"<!-- fields: (\w+) -->", lambda m: fields_table(m[1]), markdown)
    markdown = re.sub(r"<!-- list: ([\w-]+) -->", lambda m: listing_table(m[1]), markdown)
    markdown = re.sub(r"<!-- example: (\w+) -->", lambda m: example(m[1]), markdown)
    every = "\n\n".join(f"**[`{name}`]({name}.md)** {picture(name)}" for name in POLICIES)
    return markdown.replace("<!-- examples -->", every)


def on_post_build(config: Any) -> None:
    """Write llms.txt: what the pages are, for programs that read them."""
    site = Path(config["site_dir"])
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", ""]
    for section in config["nav"]:
        for title, pages in section.items():
            lines += [f"## {title}", ""]
            lines += [
                f"- [{name}]({path.removesuffix('.md')}.html)" for name, path in _flat(title, pages)
            ] + [""]
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def _flat(title: str, pages: Any) -> Iterable[tuple[str, str]]:
    if isinstance(pages, str):
        yield title, pages
    for page in pages if isinstance(pages, list) else ():
        for name, path in page.items() if isinstance(page, dict) else [(_title(page), page)]:
            yield from _flat(name, path)


def _title(path: str) -> str:
    """Return a page's own title; of a folder's first page the folder's name."""
    text = (ROOT / "docs" / path).read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def fields(schema: dict[str, Any]) -> str:
    """Return the fields of a table of the configuration, names as code."""
    rows = field_rows(schema)
    return _field_table(rows) if rows else "It has no fields."


def _field_table(rows: Iterable[Sequence[str]]) -> str:
    """Return fields as a table; what a field means stands where a phone shows it."""
    shown = [
        (f"`{name}`", meaning, default, values, unit)
        for name, unit, values, default, meaning in rows
    ]
    name, unit, values, default, meaning = FIELD_HEADS
    made = table((name, meaning, default, values, unit), shown)
    return f'<div class="fields" markdown>\n\n{made}\n\n</div>'


def fields_table(name: str) -> str:
    """Return the fields of a policy."""
    return _field_table(KINDS["policies"][1](name).rows)


def listing_table(kind: str) -> str:
    """Return all names of a kind."""
    heads, rows = KINDS[kind][0]()
    return table(heads, [(f"`{name}`", *rest) for name, *rest in rows])


@cache
def example_run(name: str) -> Result:
    """Return the eight requests under a policy."""
    policy = {"name": name, "max_num_seqs": 4, **SETTINGS[name]}
    config = Config.from_table({**EXAMPLE, "policy": policy})
    return run(config, config.policies[0], TRACE, limits_for(config, [TRACE]))


@cache
def example_picture(name: str) -> bytes:
    """Draw them, slot by slot."""
    axes = example_run(name).plot_timeline()
    file = io.BytesIO()
    axes.figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(axes.figure)
    return file.getvalue()


def picture(name: str) -> str:
    """Return the picture of an example, and what came of it."""
    requests = example_run(name).requests
    last, mean = requests["finish_s"].max(), (requests["finish_s"] - requests["arrival_s"]).mean()
    words = f"last answer after {last:.2f} s, mean E2E latency {mean:.2f} s"
    return f"({words}):\n\n![Eight requests in four slots under {name}: {words}.]({name}.svg)"


def example(name: str) -> str:
    """Return a policy's example with its settings."""
    settings = ", ".join(f"`{key} = {value}`" for key, value in SETTINGS[name].items())
    return f"Eight requests in four slots, with {settings} {picture(name)}"


def commands_page() -> str:
    """Return every command's help."""
    text = app.generate_docs(output_format="markdown").replace("# busdoor\n", "# Commands\n", 1)
    return re.sub(r"## Table of Contents\n.*?(?=\n\*\*Commands)", "", text, flags=re.S)


def configuration_page() -> str:
    """Return every table and field of a configuration."""
    schema = config_schema()
    tables, plain = schema["$defs"], schema["properties"]
    parts = [
        "# Configuration",
        "One TOML file serves every command; flags override it. Its schema: "
        "[busdoor.schema.json](busdoor.schema.json), which `busdoor schema` writes too. A first line "
        "`#:schema ./busdoor.schema.json` lets editors complete and check the file. A duration is a "
        'number of seconds, or text with a unit: `"200ms"`.',
        "## At the top",
        fields({"properties": {key: one for key, one in plain.items() if "$ref" not in one}}),
    ]
    for name in ("workload", "kv", "gpu"):
        parts += [f"## [{name}]", fields(tables[name])]
    own = {name: tables["gpu"]["properties"][name]["anyOf"][1] for name in ("name", "model")}
    parts += ["### A GPU of your own", "`[gpu] name` as a table:", fields(own["name"])]
    parts += ["### A model of your own", "`[gpu] model` as a table:", fields(own["model"])]
    parts += ["## [engine]", fields(tables["engine"]["anyOf"][1])]
    parts += [
        "## [policy]",
        "Their fields: " + ", ".join(f"[{p}](../policies/{p}.md#fields)" for p in POLICIES) + ".",
    ]
    parts += ["## [step_time]", *_variants(tables["step_time"]["anyOf"][1])]
    parts += ["## [slo]", tables["slo"]["description"], fields(tables["slo"])]
    parts += ["Also `LATENCY_mean` and `LATENCY_pNN`: limits on a statistic, as in `ttft_p99`."]
    parts += ["## [cluster]", fields(tables["cluster"])]
    parts += ["### [[cluster.pool]]", fields(tables["cluster"]["properties"]["pool"]["items"])]
    parts += ["## [sweep]", tables["sweep"]["description"], fields(tables["sweep"])]
    parts += ["## [recommend]", tables["recommend"]["description"], fields(tables["recommend"])]
    parts += ["## Laws of lengths", *_variants(tables["Lengths"])]
    parts += ["### Both lengths together", *_variants(tables["Pairs"], level=4)]
    parts += ["## Laws of arrivals", *_variants(tables["Arrivals"])]
    return "\n\n".join(parts)


def _variants(schema: dict[str, Any], level: int = 3) -> list[str]:
    parts = []
    for one in schema["anyOf"]:
        if "title" in one:
            parts += [f"{'#' * level} {one['title']}", one.get("description", ""), fields(one)]
    return parts


def names_page() -> str:
    """Return GPUs, models, engines, step times and routers by name."""
    kinds = ("gpus", "models", "engines", "step-times", "routers")
    parts = ["# Names", "`busdoor list KIND NAME` prints one with its sources."]
    for kind in kinds:
        parts += [
            f"## {kind.replace('-', ' ').capitalize().replace('Gpus', 'GPUs')}",
            listing_table(kind),
        ]
    return "\n\n".join(parts)


def notebook_pages(path: Path) -> dict[str, str | bytes]:
    """Return a notebook, as it was executed, as a page and its pictures."""
    from nbconvert import MarkdownExporter

    name = path.stem
    body, resources = MarkdownExporter().from_filename(str(path))
    outputs = resources["outputs"]
    body = re.sub(r"\((output_\w+\.\w+)\)", rf"({name}/\1)", body)
    body = re.sub(r"\((\w+)\.ipynb\)", r"(\1.md)", body)
    body = re.sub(r"<style scoped>.*?</style>", "", body, flags=re.S)
    pages: dict[str, str | bytes] = {f"notebooks/{name}.md": body}
    return pages | {f"notebooks/{name}/{file}": data for file, data in outputs.items()}
