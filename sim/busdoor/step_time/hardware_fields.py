"""What a step time of a GPU and a model is made of, whether calculated or looked up."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog import (
    DEFAULT_ENGINE,
    GPU,
    Dtype,
    Engine,
    ModelShape,
    gpu,
    gpu_names,
    model,
    model_names,
)
from busdoor.catalog import engine as find_engine
from busdoor.step_time.base import TermSeconds


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HardwareFields:
    """A GPU, a model and an engine, checked.

    Parameters
    ----------
    gpu : GPU, or what `busdoor.catalog.gpu` takes
        The GPU: its name in the catalogue, or a table of your own.
    model : ModelShape, or what `busdoor.catalog.model` takes
        The model: its name, a table of your own, or a Hugging Face config.json.
    tp : int
        GPUs that share each layer.
    weight_dtype : str, optional
        Format of the weights; the checkpoint's unless given.
    kv_dtype : str, optional
        Format of the KV cache; the checkpoint's unless given.
    engine : Engine, or what `busdoor.catalog.engine` takes
        Whose host it is, and whose kernels; vllm unless given.
    step_overhead_s : float, optional
        Host time of a step, in place of the engine's.
    request_overhead_s : float, optional
        Host time of a request in a step, in place of the engine's.
    """

    name = ""  # in [step_time] and meta.json
    gpu: Annotated[GPU, BeforeValidator(gpu)]
    model: Annotated[ModelShape, BeforeValidator(model)]
    tp: PositiveInt = 1
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    engine: Annotated[Engine, BeforeValidator(find_engine)] = Field(
        default_factory=lambda: find_engine(DEFAULT_ENGINE)
    )
    step_overhead_s: TermSeconds | None = None
    request_overhead_s: TermSeconds | None = None

    @property
    def host_s(self) -> tuple[float, float]:
        """Host seconds of a step, and of a request in it."""
        step_s, request_s = self.engine.host_s(self.tp)
        given_s, given_request_s = self.step_overhead_s, self.request_overhead_s
        return (
            step_s if given_s is None else given_s,
            request_s if given_request_s is None else given_request_s,
        )

    def describe(self) -> dict[str, Any]:
        """Name and parameters as in a result's meta.json; GPU and model by catalogue name."""
        card, shape = self.gpu, self.model
        named = {
            "gpu": card.name if card in map(gpu, gpu_names()) else card.to_table(),
            "model": shape.name if shape in map(model, model_names()) else shape.to_table(),
            "engine": self.engine.describe(),
        }
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"name": self.name, **{key: v for key, v in given.items() if v is not None}, **named}
