"""The engine: a model, its paged KV cache and its slot table on one device; it runs a policy's batches."""

from __future__ import annotations

import time
from itertools import accumulate

import torch

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.footprint import check_engine, sizes_of
from busdoor_gpu.engine.graphs import DecodeGraphs
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.passes import PASS_TOKENS, Running, guarded, new_event, passes_of, uploaded, uploaded_ragged
from busdoor_gpu.engine.prompts import prompt_tokens
from busdoor_gpu.engine.slots import EngineError, Slots, Step
from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.decode_plan import DecodePlan
from busdoor_gpu.kernels.paged_prefill import plan_prefill
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs

_REHEARSED = 4  # factor between rehearsed shapes, in rows and in tokens: libraries choose kernels by size


class Engine:
    """Runs a policy's batches on a model.

    `submit` queues a batch, `finish` waits for it. On a GPU the next batch may be submitted while the previous one
    still runs: tokens are fed back on the device, so the host does not need them. On a CPU, which computes in the
    caller's thread, `finish` computes the step.

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
        Whether decodes run as CUDA graphs, on a GPU with the triton backend.

    Attributes
    ----------
    outputs : dict
        Tokens (prompt and answer) of each finished request by its id, if they are kept.

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
        shape, device = model.config.shape, model.device
        positions = model.rope.shape[0]
        if row_tokens > positions:
            raise EngineError(f"rows of {row_tokens} tokens exceed {shape.name}'s max_position_embeddings {positions}")
        self.model, self.policy, self.backend = model, policy, backend
        check_engine(model.config, model.dtype, device, sizes_of(policy, row_tokens), loaded=True)
        self.slots = Slots(policy, row_tokens)
        self.num_blocks, self.block_size = self.slots.source.num_blocks, self.slots.block_size
        self.table = guarded(SlotTable.allocate, policy.num_slots, row_tokens + 1, self.block_size, device)
        cache = (self.num_blocks, shape.num_key_value_heads, self.block_size, shape.head_dim, model.dtype, device)
        self.caches = [guarded(allocate_kv_cache, *cache) for _ in range(shape.num_hidden_layers)]
        heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim)
        self._plan = guarded(DecodePlan.allocate, policy.num_slots, *heads, device)
        self._group = shape.num_attention_heads // shape.num_key_value_heads
        self._asynchronous = device.type == "cuda"
        self._keep = keep_outputs
        self._saved: dict[Request, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}
        self._graphs: DecodeGraphs | None = None
        if cuda_graphs and self._asynchronous and backend.name == "triton":
            self._graphs = guarded(DecodeGraphs, self.table, policy.num_slots, self.decode)
        if self._asynchronous:
            guarded(self._rehearse)

    @property
    def outputs(self) -> dict[int, list[int]]:
        """Tokens (prompt and answer) of each finished request by its id."""
        return {request_id: tokens.tolist() for request_id, tokens in self._outputs.items()}

    @property
    def graph_sizes(self) -> list[int]:
        """Batch sizes that decodes are padded to; none without CUDA graphs."""
        return self._graphs.sizes if self._graphs is not None else []

    def submit(self, batch: Batch) -> Running:
        """Pack a batch into a step; on a GPU, queue the step."""
        running = Running(self.slots.pack(batch))
        if self._asynchronous:
            guarded(self._launch, running)
        return running

    def finish(self, running: Running) -> tuple[float, float]:
        """Wait for a step; return its seconds on the device, and the seconds that the host waited."""
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
        self._graphs = None

    @torch.inference_mode()
    def _rehearse(self) -> None:
        """Run padding through the shapes that steps may have, so that nothing compiles, loads or grows later.

        In the middle of a run that time would count as the step's.
        """
        most = min(PASS_TOKENS, getattr(self.policy, "max_num_batched_tokens", None) or PASS_TOKENS)
        rows = 1
        while rows <= self.policy.num_slots:
            tokens = 1
            while rows * tokens <= most:
                self._pass(Step.of_padding(rows, tokens), 0, rows)
                tokens *= _REHEARSED
            rows *= _REHEARSED
        torch.cuda.synchronize(self.model.device)

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
        self._update(step)
        if self._graphs is not None and step.decodes and self._graphs.holds(step.slots):
            self._graphs.run(step.slots)
            return
        for low, high in passes_of(step.num_tokens):
            self._pass(step, low, high)

    @torch.inference_mode()
    def _update(self, step: Step) -> None:
        """Bring the slot table up to date."""
        table = self.table
        for request, slot, comes_back in step.left:
            if comes_back:
                self._saved[request] = table.token_ids[slot].clone()
            elif self._keep and request.status == "finished":
                self._outputs[request.request_id] = table.token_ids[
                    slot, : request.input_tokens + request.output_tokens
                ].clone()
        if step.entered:
            for request, slot, _, _ in step.entered:
                self._enter(request, slot)
            slots, cached, known = uploaded(
                list(zip(*[entry[1:] for entry in step.entered], strict=True)), self.model.device, self._asynchronous
            )
            table.num_computed[slots], table.num_known[slots] = cached, known
        if step.blocks:
            slots, index, blocks = uploaded(list(zip(*step.blocks, strict=True)), self.model.device, self._asynchronous)
            table.block_table[slots, index] = blocks

    def _enter(self, request: Request, slot: int) -> None:
        row = self.table.token_ids[slot]
        saved = self._saved.pop(request, None)
        if saved is not None:
            row.copy_(saved)
        else:
            prompt = prompt_tokens(request, self.block_size, self.model.config.shape.vocab_size)
            row[: len(prompt)] = uploaded(prompt, self.model.device, self._asynchronous)

    def _pass(self, step: Step, low: int, high: int) -> None:
        """Compute rows `low` to `high` of a step."""
        lens, wanted = step.num_tokens[low:high], step.num_wanted[low:high]
        starts = [0, *accumulate(lens)]
        slots, query_starts, wanted_starts, last = uploaded_ragged(
            (
                step.slots[low:high],
                starts,
                [0, *accumulate(wanted)],
                [a + n - 1 for a, n in zip(starts, wanted, strict=False)],
            ),
            self.model.device,
            self._asynchronous,
        )
        inputs = StepInputs.allocate(starts[-1], high - low, self.table)
        if starts[-1] == high - low:
            self.decode(slots, query_starts, inputs)
            return
        self.backend.prepare_step(self.table, slots, query_starts, inputs)
        plan = None
        if self.backend.name == "triton":
            seq_lens = [c + n for c, n in zip(step.contexts[low:high], lens, strict=True)]
            plan = plan_prefill(lens, seq_lens, self._group, self.model.device)

        def attend(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return self.backend.paged_prefill(query, k, v, inputs.block_table, inputs.seq_lens, query_starts, plan)  # type: ignore[no-any-return]

        sampled = self.model.forward(self.backend, inputs, self.caches, attend, last)
        self.backend.commit_step(self.table, slots, wanted_starts, sampled)

    def decode(self, slots: torch.Tensor, query_starts: torch.Tensor, inputs: StepInputs) -> None:
        """Compute one token for each row, all on the device, so that a CUDA graph can capture it.

        Parameters
        ----------
        slots, query_starts : Tensor
            As `prepare_step` takes them; slot -1 is padding.
        inputs : StepInputs
            Buffers for as many rows.
        """
        self.backend.prepare_step(self.table, slots, query_starts, inputs)
        self.backend.plan_decode(self._plan, inputs.seq_lens)

        def attend(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return self.backend.paged_decode(query, k, v, inputs.block_table, inputs.seq_lens, self._plan)  # type: ignore[no-any-return]

        sampled = self.model.forward(self.backend, inputs, self.caches, attend)
        self.backend.commit_step(self.table, slots, query_starts, sampled)
