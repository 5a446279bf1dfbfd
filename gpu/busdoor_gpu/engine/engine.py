"""The engine: a model, paged KV cache and slot table on a device; runs policy batches."""

from __future__ import annotations

import time

import torch

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.changes import Changes, changes_of
from busdoor_gpu.engine.device_step import DeviceStep
from busdoor_gpu.engine.footprint import check_engine, sizes_of
from busdoor_gpu.engine.launcher import Launcher
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.passes import Running, guarded, new_event
from busdoor_gpu.engine.slots import EngineError, Slots, Step
from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.decode_plan import DecodePlan
from busdoor_gpu.kernels.slot_table import SlotTable


class Engine:
    """Runs a policy's batches on a model.

    `submit` queues a batch, `finish` waits for it. On a GPU the next batch may be submitted while
    the previous one still runs: tokens are fed back on the device, so the host does not need them.
    On a CPU, which computes in the caller's thread, `finish` computes the step.

    Parameters
    ----------
    model : Model
        On its device.
    policy : Policy
        Fresh; the same object that a simulator would drive.
    backend : Backend
        From `load_backend`.
    row_tokens : int
        Most tokens of a request (in a static batch, of a row with its padding).
    keep_outputs : bool
        Whether to keep the tokens of finished requests.
    cuda_graphs : bool
        Whether steps run as CUDA graphs, on a GPU with the triton backend.

    Attributes
    ----------
    outputs : dict
        Tokens (prompt and answer) of each finished request by its id, if they are kept.
    host_launch_s : float or None
        Seconds in which this machine's host launches a step kernel by kernel, measured at the
        start; None on a CPU.

    Examples
    --------
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor_gpu.engine.backend import load_backend
    >>> from busdoor_gpu.engine.model import load_model
    >>> policy = VllmPolicy(PagedKV(8, 16), max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64)
    >>> model, backend = load_model("tiny-llama", "cpu"), load_backend("torch")
    >>> engine = Engine(model, policy, backend, row_tokens=64, keep_outputs=True)
    >>> policy.add(Request(0, 0.0, input_tokens=5, output_tokens=3))
    >>> while (batch := policy.schedule(0.0)) is not None:
    ...     _ = engine.finish(engine.submit(batch))
    ...     _ = policy.complete(batch, 1)
    >>> engine.drain()
    >>> len(engine.outputs[0])
    8
    """

    def __init__(
        self,
        model: Model,
        policy: Policy,
        backend: Backend,
        row_tokens: int,
        keep_outputs: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        shape, device, num_slots = model.config.shape, model.device, policy.num_slots
        positions = model.rope.shape[0]
        if row_tokens > positions:
            raise EngineError(
                f"rows of {row_tokens} tokens exceed {shape.name}'s max_position_embeddings "
                f"{positions}"
            )
        self.model, self.policy, self.backend = model, policy, backend
        sizes, formats = sizes_of(policy, row_tokens), (model.dtype, model.kv_dtype)
        check_engine(model.config, formats, device, sizes, loaded=True)
        self.slots = Slots(policy, row_tokens)
        self.num_blocks, self.block_size = self.slots.source.num_blocks, self.slots.block_size
        self.table = guarded(SlotTable.allocate, num_slots, row_tokens + 1, self.block_size, device)
        cache = (
            self.num_blocks,
            shape.num_key_value_heads,
            self.block_size,
            shape.head_dim,
            model.kv_dtype,
            device,
        )
        self.caches = [guarded(allocate_kv_cache, *cache) for _ in range(shape.num_hidden_layers)]
        heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim)
        decode_plan = guarded(DecodePlan.allocate, num_slots, *heads, device)
        run = DeviceStep(model, backend, self.table, self.caches, decode_plan)
        max_tokens = getattr(policy, "max_num_batched_tokens", None)
        self.launcher = guarded(Launcher, run, num_slots, row_tokens, max_tokens)
        self._asynchronous = device.type == "cuda"
        self._keep = keep_outputs
        self._saved: dict[Request, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}
        self.host_launch_s: float | None = None
        if self._asynchronous:
            if cuda_graphs and backend.name == "triton":
                guarded(self.launcher.capture)
            guarded(self.launcher.rehearse)
            self.host_launch_s = guarded(self.launcher.time_launch)

    @property
    def outputs(self) -> dict[int, list[int]]:
        """Tokens (prompt and answer) of each finished request by its id."""
        return {request_id: tokens.tolist() for request_id, tokens in self._outputs.items()}

    @property
    def graph_sizes(self) -> list[int]:
        """Batch sizes that decodes are padded to; none without CUDA graphs."""
        return self.launcher.graphs.decode_sizes if self.launcher.graphs else []

    @property
    def mixed_graph_sizes(self) -> list[int]:
        """Token counts that steps with a prefill are padded to; larger ones launch by kernel."""
        return self.launcher.graphs.mixed_sizes if self.launcher.graphs else []

    def submit(self, batch: Batch) -> Running:
        """Pack a batch into a step; on a GPU, queue the step."""
        running = Running(self.slots.pack(batch))
        if self._asynchronous:
            guarded(self._launch, running)
        return running

    def finish(self, running: Running) -> tuple[float, float]:
        """Wait for a step; return its seconds on the device, and those the host waited."""
        if self._asynchronous:
            return guarded(self._wait, running)
        start_s = time.process_time()
        guarded(self._run, running.step)
        passed_s = time.process_time() - start_s
        return passed_s, passed_s

    def drain(self) -> None:
        """Release every request, so that `outputs` is complete."""
        guarded(self._update, self.slots.leave_all())

    def close(self) -> None:
        """Free the KV cache's memory at once, even if the engine is still referenced."""
        self.caches.clear()
        self.launcher.graphs = None

    def _launch(self, running: Running) -> None:
        start, end = running.events = (new_event(), new_event())
        start.record()
        self._run(running.step)
        end.record()

    def _wait(self, running: Running) -> tuple[float, float]:
        assert running.events is not None
        start, end = running.events
        asked_s = time.perf_counter()
        end.synchronize()
        return start.elapsed_time(end) / 1e3, time.perf_counter() - asked_s

    @torch.inference_mode()
    def _run(self, step: Step) -> None:
        self.launcher.launch(step, self._update(step))

    @torch.inference_mode()
    def _update(self, step: Step) -> Changes:
        """Keep the tokens of leaving requests, restore those that return; return the changes."""
        table = self.table
        for request, slot, comes_back in step.left:
            if comes_back:
                self._saved[request] = table.token_ids[slot].clone()
            elif self._keep and request.status == "finished":
                num_tokens = request.input_tokens + request.output_tokens
                self._outputs[request.request_id] = table.token_ids[slot, :num_tokens].clone()
        changes = changes_of(step, table, self._saved, self.model.config.shape.vocab_size)
        for request, slot, _, _ in step.entered:
            if (saved := self._saved.pop(request, None)) is not None:
                table.token_ids[slot].copy_(saved)
        for request in [own for own in self._saved if own.status == "abandoned"]:
            del self._saved[request]  # it was given up while it waited to come back
        return changes
