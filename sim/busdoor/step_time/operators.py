"""The step time of measured operators: kernels timed one by one on a GPU, and an engine's host."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.core.batch import Batch
from busdoor.core.registry import in_one_sentence
from busdoor.step_time.base import Pieces, StepTime
from busdoor.step_time.hardware_fields import HardwareFields
from busdoor.step_time.operator_catalog import Deployment, Formats, deployment_of
from busdoor.step_time.operator_loading import load_profile, load_tables
from busdoor.step_time.operator_times import OperatorTimes, Tables


@in_one_sentence
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OperatorStepTime(HardwareFields, StepTime):
    """Look an iteration's operators up in tables measured on the GPU, and add the host.

    The tables are those of aiconfigurator-core (`pip install 'busdoor[operators]'`): GEMMs,
    attention, mixtures of experts and all-reduces of vLLM, SGLang and TensorRT-LLM, timed one by
    one on A100 to GB300. What a model needs and they lack is refused.

    Parameters
    ----------
    pp : int
        Stages of layers, which a batch passes one after the other.
    dp : int
        Groups of `tp` GPUs that share the requests evenly (attention data parallel).
    ep : int
        Groups that share the experts, of tp · dp GPUs in all.
    quant_mode : str, optional
        Format of the weights in the package's words ("fp8_block"), in place of `weight_dtype`.
    backend : str, optional
        Whose kernels, where the engine is another: vllm, sglang or trtllm.
    system : str, optional
        The package's name of the GPU, where it is not to choose by ours: gb200_sxm.
    configuration : str, optional
        The package's name of the model, likewise: Qwen/Qwen3-VL-8B-Instruct.
    version : str, optional
        Version of the backend; the newest complete tables unless given.
    profile : str, optional
        Folder tp<N> of a profile by LLMServingSim, in place of the package's tables.

    The other fields are those of `HardwareFields`.

    References
    ----------
    ai-dynamo/aiconfigurator, Apache-2.0. How far off it is: docs/operators.md.

    Examples
    --------
    >>> step_time = OperatorStepTime("h200", "qwen3-32b", tp=2)  # doctest: +SKIP
    >>> batch = Batch(num_decode_tokens=64, decode_context_tokens=64 * 1024)
    >>> round(step_time.duration_s(batch) * 1e3, 1)  # doctest: +SKIP
    16.0
    """

    name = "operators"
    pp: PositiveInt = 1
    dp: PositiveInt = 1
    ep: PositiveInt = 1
    quant_mode: str | None = None
    backend: str | None = None
    system: str | None = None
    configuration: str | None = None
    version: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.tables and self.profile and (self.pp, self.dp, self.ep) != (1, 1, 1):
            raise ValueError("a profile is of tp alone; leave pp, dp and ep out, or the profile")

    @property
    def deployment(self) -> Deployment:
        """What runs on what, in the package's words."""
        return deployment_of(
            self.configuration or self.model,
            self.system or self.gpu,
            self.backend or self.engine.family,
            self.version,
            {"tp": self.tp, "pp": self.pp, "dp": self.dp, "ep": self.ep},
            Formats(self.weight_dtype, self.kv_dtype, self.quant_mode),
        )

    @cached_property
    def tables(self) -> Tables:
        """Where to look up; ValueError if there are no such tables."""
        if self.profile is None:
            return load_tables(self.deployment)
        return load_profile(Path(self.profile), self.gpu, self.model, self.tp)

    @property
    def num_groups(self) -> int:
        """Groups of `tp` GPUs that one server has."""
        return self.pp * self.dp

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the tables, a sentence each."""
        return self.tables.notes

    @cached_property
    def times(self) -> OperatorTimes:
        """What looks up, and keeps what it has found."""
        return OperatorTimes(self.tables, *self.host_s, self.dp)

    def pieces(self, batch: Batch, repeat: int) -> Pieces:
        """Return the lines on which the durations of `repeat` iterations lie."""
        return self.times.pieces(batch, repeat)

    def duration_s(self, batch: Batch) -> float:
        """Seconds that one iteration of the batch takes."""
        return self.times.pieces(batch, 1)[0][1]

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""
        lines = self.times.pieces(batch, repeat)
        return np.concatenate(
            [first_s + growth_s * np.arange(count) for count, first_s, growth_s in lines]
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tables behind: another process loads its own."""
        return {
            name: value for name, value in vars(self).items() if name not in ("tables", "times")
        }
