"""Models by name, by the file that describes them, or by a table of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from busdoor.catalog.config_json import fields_of, read_config
from busdoor.catalog.shape import ModelShape
from busdoor.catalog.tables import Table, look_up, read_tables
from busdoor.core.registry import checked

CONFIG_NAME = "config.json"


def model(name: str | Path | Mapping[str, Any] | ModelShape) -> ModelShape:
    """Look up a model, read the file that describes it, or make one of a table.

    Parameters
    ----------
    name : str, Path, mapping or ModelShape
        A name or alias in any case, with or without its owner; a Hugging Face `config.json` or the
        folder that holds it; or a table of `ModelShape`'s fields, filled from the catalogue where
        its `name` is known.

    Raises
    ------
    ValueError
        If the name is not known (the message has the nearest one), the file is of an architecture
        that is not known or lacks a field, or the table is wrong.

    Examples
    --------
    >>> model("meta-llama/Llama-3.1-8B-Instruct").name
    'llama-3.1-8b'
    >>> model("qwen3-8")
    Traceback (most recent call last):
    ValueError: 'qwen3-8' is not a model of the catalogue; did you mean 'qwen3-8b'? (known: ...)
    """
    if isinstance(name, ModelShape):
        return name
    if path := config_path(name):
        return read_config(path)
    return checked(ModelShape, look_up(_tables(), "a model of the catalogue", name), "[model]")


def model_names() -> list[str]:
    """Names of the catalogue's models."""
    return list(_tables())


def config_path(name: object, folder: Path | None = None) -> Path | None:
    """Return the config.json that a model's name stands for, or None if it is no path to one.

    Parameters
    ----------
    name : object
        A JSON file, or a folder that holds a config.json; anything else is no path.
    folder : Path, optional
        Where relative paths start; the working directory unless given.

    Raises
    ------
    ValueError
        If the name can only be a path, and there is no such file.

    Examples
    --------
    >>> config_path("qwen3-8b") is None
    True
    >>> config_path("./qwen3-8b")
    Traceback (most recent call last):
    ValueError: model = './qwen3-8b': there is no such file, nor a folder with a config.json; ...
    """
    if not isinstance(name, str | Path) or not str(name):
        return None
    try:
        path = (folder or Path()) / Path(name).expanduser()
        found = [
            file for file in (path / CONFIG_NAME, path) if file.suffix == ".json" and file.is_file()
        ]
    except (OSError, ValueError, RuntimeError):  # no name that a file could have
        return None
    if found:
        return found[0]
    if isinstance(name, Path) or name.startswith((".", "/", "~")) or name.endswith(".json"):
        raise ValueError(
            f"model = {str(name)!r}: there is no such file, nor a folder with a {CONFIG_NAME}; "
            "give a Hugging Face config.json, its folder, or a model's name"
        )
    return None


def has_config(name: object, folder: Path | None = None) -> bool:
    """Whether a model's name stands for a config.json that exists.

    Examples
    --------
    >>> has_config("qwen3-8b"), has_config("./qwen3-8b")
    (False, False)
    """
    try:
        return config_path(name, folder) is not None
    except ValueError:
        return False


@cache
def _tables() -> Mapping[str, Table]:
    """Fields of each model of the catalogue; config.json's keys are read into fields."""
    return {name: _fields(table) for name, table in read_tables("models.toml").items()}


def _fields(table: Table) -> Table:
    config = table.get("config")
    if config is None:
        return table
    own = {key: value for key, value in table.items() if key != "config"}
    return {**fields_of(config, f"models.toml [{table['name']}]"), **own}
