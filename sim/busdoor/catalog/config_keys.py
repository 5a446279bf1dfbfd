"""The keys of a Hugging Face config.json, each checked when it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_NOTHING: Mapping[str, Any] = {}


class ConfigKeys:
    """A config.json's table, called `where` in messages; a key that is missing or wrong is named.

    `assumed`: what the architecture assumes where the file does not have a key.

    >>> keys = ConfigKeys({"hidden_size": 64, "head_dim": None}, "config.json")
    >>> keys.count("hidden_size"), keys.count_or(16, "head_dim")
    (64, 16)
    >>> keys.count("num_hidden_layers")
    Traceback (most recent call last):
    ValueError: config.json: num_hidden_layers is missing; give the file that belongs to the weights
    """

    def __init__(
        self, table: Mapping[str, Any], where: str, assumed: Mapping[str, Any] = _NOTHING
    ) -> None:
        self._table, self._where, self._assumed = table, where, assumed

    def get(self, key: str) -> Any:
        """Return what the file says, or else what the architecture assumes; None for neither."""
        said = self._table.get(key)
        return self._assumed.get(key) if said is None else said

    def count(self, key: str) -> int:
        """Return a whole number above 0; ValueError if it is missing or something else."""
        value = self.get(key)
        if value is None:
            raise ValueError(
                f"{self._where}: {key} is missing; give the file that belongs to the weights"
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{self._where}: {key} is {value!r}; it must be a whole number above 0"
            )
        return value

    def count_or(self, otherwise: int, key: str) -> int:
        """Return a whole number above 0, or another where the file has none, null or 0."""
        return self.count(key) if self.get(key) not in (None, 0) else otherwise

    def flag(self, key: str) -> bool:
        """Return whether a switch is on; off unless the file has it."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{self._where}: {key} is {value!r}; it must be true or false")
        return bool(value)

    def sequence(self, key: str) -> list[Any]:
        """Return a list, empty where the file has none."""
        value = self.get(key)
        if value is not None and not isinstance(value, list):
            raise ValueError(f"{self._where}: {key} is {value!r}; it must be a list")
        return value or []

    def refuse(self, key: str, right: Iterable[str], remedy: str) -> ValueError:
        """Return the error that a key's value is none of those that are right."""
        return ValueError(
            f"{self._where}: {key} is {self.get(key)!r}; it must be {' or '.join(right)}; {remedy}"
        )
