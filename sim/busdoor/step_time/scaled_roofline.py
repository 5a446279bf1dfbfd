"""A roofline at the rates that a server was seen to reach: two factors, and host seconds."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from busdoor.core.registry import in_one_sentence
from busdoor.step_time.calibration_files import read_calibration_tables
from busdoor.step_time.roofline import RooflineStepTime
from busdoor.step_time.roofline_costs import Costs
from busdoor.step_time.roofline_costs_of import costs_of
from busdoor.step_time.roofline_fields import RooflineFields

NAME = "scaled_roofline"
# A tenth of what kernels reach elsewhere, and twice as much: no server of the same GPU is beyond.
Scale = Annotated[float, Field(ge=0.1, le=2.0)]


@in_one_sentence
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ScaledRooflineStepTime(RooflineStepTime):
    """The roofline of a GPU and a model, at the rates that a server of them was seen to reach.

    `busdoor calibrate --from-requests --gpu … --model …` fits it. It keeps its meaning on another
    GPU or with another model: as much of what the roofline says there.

    Parameters
    ----------
    path : str, optional
        File of a calibration to take the fields from; those that are given here win.
    gemm_scale : float
        Matrix rate, of GEMMs and of prefill attention, over the roofline's.
    memory_scale : float
        Bandwidth, of weights, keys and activations, over the roofline's.
    fitted_to : str
        Calibration that it is from.

    The other fields are those of `RooflineFields`.

    Examples
    --------
    >>> from busdoor.core.batch import Batch
    >>> half = ScaledRooflineStepTime(gpu="h100", model="llama-3.1-8b", memory_scale=0.5)
    >>> whole = RooflineStepTime(gpu="h100", model="llama-3.1-8b")
    >>> reads = [model.parts_s(Batch(num_decode_tokens=1), 1)["dense"][0] for model in (half, whole)]
    >>> round(float(reads[0] / reads[1]), 9)
    2.0
    """

    name = NAME
    path: str | None = None
    gemm_scale: Scale = 1.0
    memory_scale: Scale = 1.0
    fitted_to: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """Fill the fields from the file that `path` names; fields that are given win."""
        kwargs = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else dict(given)
        path = kwargs.pop("path", None)
        if path is None:
            return given
        if not isinstance(path, str | Path):
            raise ValueError(f"path = {path!r} must be a calibration's file or name")
        table = dict(read_calibration_tables(path)["step_time"])
        if table.pop("name", None) != NAME:
            raise ValueError(f"{path}: its [step_time] is no {NAME}")
        return {**table, **kwargs}

    @cached_property
    def costs(self) -> Costs:
        """Seconds of each unit of work at these rates, none of which passes the GPU's own."""
        card = self.gpu

        scaled = {
            "gemm_efficiency": self.gemm_scale,
            "attention_efficiency": self.gemm_scale,
            "memory_efficiency": self.memory_scale,
            "kv_efficiency": self.memory_scale,
        }
        reached = {
            name: min(1.0, scale * (getattr(self, name) or getattr(card, name)))
            for name, scale in scaled.items()
        }
        given = {field.name: getattr(self, field.name) for field in fields(RooflineFields)}
        return costs_of(RooflineFields(**given | reached))
