"""From a Hugging Face config.json alone to a model's shape: no network, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busdoor.catalog.config_families import FAMILIES
from busdoor.catalog.config_keys import ConfigKeys
from busdoor.catalog.config_quantization import formats
from busdoor.catalog.shape import ModelShape
from busdoor.core.names import unknown
from busdoor.core.registry import checked

_HAVE_ALL = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip


def read_config(path: Path) -> ModelShape:
    """Read the shape of a model from its config.json.

    The model is called as its folder, or as the file if that has a name of its own. Keys and their
    meaning: huggingface/transformers 4.57, `models/*/configuration_*.py`. Raises ValueError if the
    file is no JSON table, the architecture is not known, or a key is missing or wrong.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must be a JSON table, as the config.json of a model is")
    table = {"source": str(path), **fields_of(config, str(path))}
    return checked(ModelShape, {"name": _name(path), **table}, str(path))


def fields_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a `ModelShape` that the keys of a config.json give.

    Of a model for pictures too, the language model in `text_config` counts. `where` is how messages
    call the file.

    >>> config = {"architectures": ["MixtralForCausalLM"], "hidden_size": 4096}
    >>> fields_of(config, "config.json")
    Traceback (most recent call last):
    ValueError: config.json: num_hidden_layers is missing; give the file that belongs to the weights
    >>> fields_of({"architectures": ["MambaForCausalLM"]}, "config.json")
    Traceback (most recent call last):
    ValueError: config.json: 'MambaForCausalLM' is not an architecture that is read; did you mean ...
    """
    text = config.get("text_config") or config
    if not isinstance(text, Mapping):
        raise ValueError(f"{where}: text_config is {text!r}; it must be a table")
    family = FAMILIES[_architecture(config, text, where)]
    keys = ConfigKeys({**_shared(config), **text}, where, family.assumed)
    fields = {key: keys.count(key) for key in _HAVE_ALL}
    heads = fields["num_attention_heads"]
    fields |= {
        "num_key_value_heads": keys.count_or(heads, "num_key_value_heads"),
        "head_dim": keys.count_or(max(1, fields["hidden_size"] // heads), "head_dim"),
        "tie_word_embeddings": keys.flag("tie_word_embeddings"),
        **family.fields(keys),
    }
    return {**fields, **formats(keys, fields.get("num_experts", 1) > 1)}


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that stand outside `text_config` though they are about it."""
    about = ("quantization_config", "torch_dtype", "dtype", "tie_word_embeddings")
    return {key: config[key] for key in about if key in config}


def _architecture(config: Mapping[str, Any], text: Mapping[str, Any], where: str) -> str:
    """Return the name under which `FAMILIES` has the model, of its architecture or its type."""
    named = [*(text.get("architectures") or []), *(config.get("architectures") or [])]
    inside = [text.get("model_type")] if text is not config or not named else []
    for name in (*inside, *named):
        if name in FAMILIES:
            return str(name)
    name = (named or inside)[0]
    if name is None:
        raise ValueError(
            f"{where}: architectures is missing; give the file that belongs to the weights"
        )
    known = [family for family in FAMILIES if family.endswith("ForCausalLM")]
    raise ValueError(
        f"{where}: {unknown('an architecture that is read', name, known)}; or write the shape's "
        "own fields as a table, model = {num_hidden_layers = ...}"
    )


def _name(path: Path) -> str:
    """Return what to call the model of a file: a snapshot of the hub's cache by its repository."""
    if path.name != "config.json":
        return path.stem.removesuffix("_config")
    folder = path.resolve().parent
    if folder.parent.name == "snapshots":
        folder = folder.parent.parent
    return folder.name.rpartition("--")[2]
