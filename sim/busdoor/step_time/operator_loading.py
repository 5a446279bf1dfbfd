"""Load operator tables from aiconfigurator-core, with what a user should know about them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata, resources
from pathlib import Path
from typing import Any

from busdoor.catalog import GPU, ModelShape
from busdoor.core.batch import Batch
from busdoor.core.names import listed
from busdoor.step_time.operator_catalog import PACKAGE, Deployment
from busdoor.step_time.operator_profile import ProfileTables
from busdoor.step_time.operator_tables import OperatorTables, Values
from busdoor.step_time.roofline import RooflineStepTime

NOT_MEASURED = 0.1  # share of a decode step that is estimated before a note says so
LENT = ": rows of "  # between a table and the engine whose rows it has
Key = tuple[str, str, str]


@cache
def load_tables(deployment: Deployment) -> OperatorTables:
    """Load the tables of a deployment, once per process: 1 to 8 seconds.

    Raises ValueError if what the model needs is not in them; the sentence says which models they
    serve.
    """
    try:
        with _HEARD.of(deployment):
            engine = load_evaluator(deployment)
            tables = OperatorTables(engine)
            _look_up_each(tables)
    except Exception as error:  # the package raises a dozen types, RuntimeErrors among them
        raise ValueError(_lacking(deployment, error)) from error
    tables.notes = _notes(deployment, engine.decode_step_per_op(64, 1024, 2))
    return tables


def load_profile(folder: Path, card: GPU, shape: ModelShape, tp: int) -> ProfileTables:
    """Read a profile of LLMServingSim, with the all-reduces of the roofline.

    Raises ValueError if the folder is none, or not of so many GPUs.
    """
    if folder.name != f"tp{tp}":
        raise ValueError(f"profile = '{folder}' is not of tp = {tp}; give its folder tp{tp}")
    roofline = RooflineStepTime(card, shape, tp)
    steps = [Batch(num_decode_tokens=tokens) for tokens in (1, 2)]
    one_s, two_s = (float(roofline.parts_s(step, 1)["all_reduce"][0]) for step in steps)
    return ProfileTables(folder, shape, (2 * one_s - two_s, two_s - one_s))


@cache
def load_evaluator(deployment: Deployment) -> Any:
    """Return the package's own evaluator of a deployment: an `AicEngine`."""
    where = (deployment.model, deployment.system, deployment.backend)
    _database(deployment).supported_quant_mode["gemm"]  # opens the tables, of which it warns here
    spec = import_module(f"{PACKAGE}.sdk.engine").compile_engine(*where, **deployment.options)
    return import_module(PACKAGE).AicEngine.from_spec(spec)


def _database(deployment: Deployment) -> Any:
    database = import_module(f"{PACKAGE}.sdk.perf_database")
    return database.get_database(deployment.system, deployment.backend, _version(deployment))


def _version(deployment: Deployment) -> str:
    """Return the version of the tables, spelt out."""
    slots = import_module(f"{PACKAGE}.sdk.perf_database").get_version_slots
    return deployment.version or str(slots(deployment.system, deployment.backend)["current"])


def _look_up_each(tables: OperatorTables) -> None:
    """Look up one of each part, so that what is missing is missed before a run begins."""
    tables.tokens_s(64)
    tables.heads_s(1)
    tables.chunks_s(1, 64, 0)
    tables.rows_s(1)
    tables.contexts_s(1, 64)


def _lacking(deployment: Deployment, error: Exception) -> str:
    """Write what the tables lack, and which models they serve."""
    system, backend, wanted = deployment.system, deployment.backend, deployment.model
    reason = str(error).partition(" at /")[0].split("; ")[0].partition(": either ")[0].strip(" .")
    others = listed([name for name in _served(system, backend) if name != wanted]) or "no model"
    tables = f"the operator tables of {backend} on {system}"
    return f"{tables} do not serve {wanted} as asked ({reason}); they serve {others}"


def _served(system: str, backend: str) -> list[str]:
    """Return the models for which the package's own tests pass on a GPU and engine."""
    folder = resources.files(PACKAGE).joinpath("systems", "support_matrix")
    table = folder.joinpath(f"{system}.csv")
    if not table.is_file():
        return []
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    passed = ((row["Backend"], row["Status"], row["HuggingFaceID"]) for row in rows)
    return sorted({name for *outcome, name in passed if outcome == [backend, "PASS"]})


class _Heard(logging.Handler):
    """Keeps the package's warnings: it logs each once per process and GPU, whatever the model."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: dict[Key, list[str]] = {}
        self._key: Key = ("", "", "")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning; of rows that another engine lends, which and whose."""
        text = record.getMessage()
        if "low-fidelity" in text and isinstance(record.args, tuple) and len(record.args) == 2:
            table, path = map(str, record.args)
            text = f"{table.removesuffix('_perf.parquet')}{LENT}{' '.join(path.split('/')[-3:-1])}"
        self.warnings.setdefault(self._key, []).append(text)

    @contextmanager
    def of(self, deployment: Deployment) -> Iterator[None]:
        """Keep what is logged meanwhile, instead of its being printed."""
        logger = logging.getLogger(PACKAGE)
        before, self._key = logger.propagate, _key(deployment)
        logger.addHandler(self)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = before


_HEARD = _Heard()


def _key(deployment: Deployment) -> Key:
    return deployment.system, deployment.backend, _version(deployment)


def _notes(deployment: Deployment, decode: Values) -> tuple[str, ...]:
    """Return whose tables they are, and what in them was not measured there."""
    words = {word for value in decode for word in value[0].split("_")}
    heard = _HEARD.warnings.get(_key(deployment), [])
    said = [text for text in heard if concerns(text, words)]
    lent = [text for text in said if LENT in text]
    borrowed = [f"operators: low-fidelity {listed(lent)}"] if lent else []
    others = [f"operators: {text}" for text in said if text not in lent]
    return (_whose(deployment), *estimated(decode), *borrowed, *others)


def _whose(deployment: Deployment) -> str:
    return (
        f"operators: measured on {deployment.system} with {deployment.backend} {_version(deployment)} "
        f"(aiconfigurator-core {metadata.version('aiconfigurator-core')})"
    )


def concerns(warning: str, words: set[str]) -> bool:
    """Whether a warning about a table is about an operator of those words; others always count.

    >>> text = "mla_context_module: rows of trtllm 1.3.0"
    >>> concerns(text, {"generation", "mla", "block"}), concerns(text, {"generation", "gemm"})
    (True, False)
    >>> concerns("something else", {"gemm"})
    True
    """
    table, colon, _ = warning.partition(LENT)
    named = set(table.split("_")) - {"context", "generation", "module"}
    return not colon or bool(named & words)


def estimated(decode: Values) -> list[str]:
    """Return a note on the operators of a decode step that are estimated, where they are much of it.

    >>> estimated([("generation_gemm", 9.0, 0.0, "silicon"), ("generation_moe", 3.0, 0.0, "mixed")])
    ['operators: moe is estimated, not measured: 25 % of a decode step of 64 requests']
    >>> estimated([("generation_gemm", 9.0, 0.0, "silicon"), ("generation_norm", 0.5, 0.0, "empirical")])
    []
    """
    total = sum(value[1] for value in decode)
    guessed = {value[0]: value[1] for value in decode if value[3] != "silicon"}
    share = sum(guessed.values()) / total
    if share < NOT_MEASURED:
        return []
    names = [name.removeprefix("generation_") for name, ms in guessed.items() if ms > total / 100]
    are = "is" if len(names) == 1 else "are"
    return [
        f"operators: {listed(names)} {are} estimated, not measured: {round(100 * share)} % of a "
        f"decode step of 64 requests"
    ]
