"""Engines: host and front-end times of a server, by name and version, and its default limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import BYTES_PER_VALUE, Dtype
from busdoor.catalog.gpus import Share
from busdoor.catalog.tables import look_up, read_tables
from busdoor.core.names import Label
from busdoor.core.registry import checked

# what most people run, and whose limits and memory share are our defaults too
DEFAULT_ENGINE = "vllm"
# per step, request or token: more is no engine's host, but a unit that was mistaken
MOST_HOST_S = 1.0
HostSeconds = Annotated[float, Field(ge=0, le=MOST_HOST_S)]


def bits_of(weight_dtype: Dtype) -> int:
    """Return the bits of a weight, as `Checked` has them."""
    return {2.0: 16, 1.0: 8}.get(BYTES_PER_VALUE[weight_dtype], 4)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Checked:
    """How far predictions were off where they were compared with measurements of an engine."""

    bits: Literal[16, 8, 4]
    """Of the weights."""
    tensor_parallel: bool = False
    """Whether several GPUs shared the model."""
    step_time: Literal["roofline", "operators"] = "roofline"
    """What predicted."""
    tpot_error: Annotated[float, Field(ge=0)]
    """Mean absolute error of TPOT, as a share."""
    num_points: PositiveInt
    """Measured loads."""
    source: str
    """What was measured."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Engine:
    """What a serving engine adds to its GPUs' work, and what it sets where its user is silent.

    Parameters
    ----------
    name : str
        Name in the catalogue.
    host_per_step_s : float
        Seconds that the GPU waits for the host in a step.
    host_per_request_s : float
        Seconds more of that for each request in the step.
    host_per_step_tp_s : float, optional
        `host_per_step_s` with tensor parallel, where that differs.
    host_per_request_tp_s : float, optional
        `host_per_request_s` with tensor parallel, where that differs.
    frontend_per_request_s : float
        Seconds from a request's arrival to its place in the queue.
    frontend_per_token_s : float
        Seconds more of that for each token of its prompt.
    max_num_batched_tokens : int, optional
        Token budget of an iteration; chosen by the GPU if left out.
    max_num_seqs : int, optional
        Most requests in an iteration; chosen by the GPU if left out.
    gpu_memory_utilization : float, optional
        Share of the GPU's memory that the engine takes.
    memory_share_of : {"all", "free"}
        What that is a share of: all of it, or what the weights leave.
    fp8_kv_dtype : str, optional
        Format of the KV cache beside weights in fp8, where its user gives none.
    lookahead : {0, 1}, optional
        When it decides an iteration: at the end of the one before, or while that still runs.
    versions : str
        Versions that the terms were seen on.
    left_out : str
        What predictions leave out that its user should know of, where KV memory is estimated.
    checked : tuple of Checked
        How far it was off.
    aliases : tuple of str
        Other names.
    sources : dict of str to str
        Where each value is from.

    Examples
    --------
    >>> vllm = engine("vLLM")
    >>> vllm.name, vllm.lookahead
    ('vllm', 1)
    """

    name: Label
    host_per_step_s: HostSeconds = 0.0
    host_per_request_s: HostSeconds = 0.0
    host_per_step_tp_s: HostSeconds | None = None
    host_per_request_tp_s: HostSeconds | None = None
    frontend_per_request_s: HostSeconds = 0.0
    frontend_per_token_s: HostSeconds = 0.0
    max_num_batched_tokens: PositiveInt | None = None
    max_num_seqs: PositiveInt | None = None
    gpu_memory_utilization: Share | None = None
    memory_share_of: Literal["all", "free"] = "all"
    fp8_kv_dtype: Dtype | None = None
    lookahead: Literal[0, 1] | None = None
    versions: str = ""
    left_out: str = ""
    checked: tuple[Checked, ...] = Field(default=(), repr=False)
    aliases: tuple[str, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict, repr=False)

    def host_s(self, tp: int = 1) -> tuple[float, float]:
        """Return the host seconds of a step, and of a request in it, with `tp` GPUs per model.

        Examples
        --------
        >>> engine("vllm").host_s(tp=2), engine("vllm-0.12").host_s(tp=2)
        ((0.0005, 2e-05), (0.0013, 4.8e-05))
        """
        alone = self.host_per_step_s, self.host_per_request_s
        if tp == 1:
            return alone
        shared = self.host_per_step_tp_s, self.host_per_request_tp_s
        step_s, request_s = (
            own if own is not None else one for own, one in zip(shared, alone, strict=True)
        )
        return step_s, request_s

    def accuracy(
        self, tp: int = 1, weight_dtype: Dtype = "bf16", step_time: str = "roofline"
    ) -> str:
        """Return how far predictions of TPOT were off, or that they were not checked.

        Examples
        --------
        >>> engine("trtllm").accuracy()
        'TPOT was 3.4 % off on average, over 42 measured loads'
        >>> engine("busdoor").accuracy(tp=2, weight_dtype="fp8")
        'not checked with tensor parallel and weights of 8 bits'
        """
        if one := self.record(tp, weight_dtype, step_time):
            return (
                f"TPOT was {100 * one.tpot_error:.2g} % off on average, over {one.num_points} "
                "measured loads"
            )
        bits = bits_of(weight_dtype)
        narrow = "" if bits == 16 else f"weights of {bits} bits"
        where = " and ".join(part for part in ("tensor parallel" if tp > 1 else "", narrow) if part)
        return f"not checked with {where}" if where else "not checked"

    def record(self, tp: int, weight_dtype: Dtype, step_time: str) -> Checked | None:
        """Return how far off predictions of such a server were; None where none was checked."""
        wanted = bits_of(weight_dtype), tp > 1, step_time
        for one in self.checked:
            if (one.bits, one.tensor_parallel, one.step_time) == wanted:
                return one
        return None

    @property
    def family(self) -> str:
        """Name without its version: "vllm" of "vllm-0.12"."""
        return self.name.partition("-")[0]

    @property
    def limits(self) -> dict[str, int]:
        """Limits of the scheduler that the engine sets."""
        given = {key: getattr(self, key) for key in ("max_num_seqs", "max_num_batched_tokens")}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def title(self) -> str:
        """Name and versions, as in "vllm (0.15 to 0.23)"."""
        return f"{self.name} ({self.versions})" if self.versions else self.name

    def describe(self) -> str | dict[str, Any]:
        """Return its name where the catalogue has it, else what differs from a preset of its name.

        Examples
        --------
        >>> engine("vllm").describe()
        'vllm'
        >>> engine({"name": "mine", "host_per_step_s": 1e-3}).describe()
        {'name': 'mine', 'host_per_step_s': 0.001}
        """
        base = engine(self.name) if self.name in engine_names() else Engine(name=self.name)
        changed = {
            one.name for one in fields(self) if getattr(self, one.name) != getattr(base, one.name)
        }
        if self.name in engine_names() and not changed:
            return self.name
        table = {key: value for key, value in asdict(self).items() if key in {"name", *changed}}
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in table.items()
        }


def engine(name: str | Mapping[str, Any] | Engine) -> Engine:
    """Look up an engine, or make one of a table.

    Parameters
    ----------
    name : str, mapping or Engine
        A name or alias in any case; or a table of `Engine`'s fields, filled from the catalogue
        where its `name` is known.

    Raises
    ------
    ValueError
        If the name is not known (the message has the nearest one), or the table is wrong.

    Examples
    --------
    >>> engine({"name": "vllm", "host_per_request_s": 48e-6}).host_per_request_s
    4.8e-05
    >>> engine("vlm")
    Traceback (most recent call last):
    ValueError: 'vlm' is not an engine of the catalogue; did you mean 'vllm'? (known: busdoor, ...)
    """
    if isinstance(name, Engine):
        return name
    if isinstance(name, Mapping):
        # What was checked is the preset, not what a user makes of its host.
        name = {"checked": (), **name} if any(key.startswith("host_") for key in name) else name
    table = look_up(read_tables("engines.toml"), "an engine of the catalogue", name)
    return checked(Engine, table, "[engine]")


def engine_names() -> list[str]:
    """Names of the catalogue's engines.

    Examples
    --------
    >>> engine_names()[:2]
    ['busdoor', 'vllm']
    """
    return list(read_tables("engines.toml"))
