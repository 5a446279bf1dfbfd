"""A profile runs all designed iterations on the engine, and notes only what is clean."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

pytest.importorskip("torch")

from busdoor.results.columns import ITERATION_COLUMNS
from busdoor.results.result import Result
from busdoor_gpu.cli import profile as cli_profile
from busdoor_gpu.cli.flags import GridFlags, MachineFlags
from busdoor_gpu.twin.grid import Cell, GridLimits, design
from busdoor_gpu.twin.grid_policy import GridPolicy
from busdoor_gpu.twin.profile import profile

LIMITS = GridLimits(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=128, num_blocks=40)


def drive(cells, limits=LIMITS, rounds=2):
    """Run a policy without a device, an iteration a second; return batches and cells."""
    policy = GridPolicy(cells, limits, budget_s=1e9)
    rows = []
    for now_s in range(10**6):
        batch = policy.schedule(float(now_s))
        assert batch is not None
        items = list(policy.items(batch))
        assert policy.num_running <= policy.num_slots and policy.kv.num_free_blocks >= 0
        rows.append((batch, policy.cell_of[-1], sum(tokens for _, tokens in items)))
        policy.complete(batch, 1)
        if (
            policy.cell_of.count(policy.cell_of[-1]) >= rounds * 8
            and len(set(policy.cell_of)) == len(cells) + 1
        ):
            return rows
    raise AssertionError("the grid was not covered")


def test_every_cell_of_the_grid_keeps_within_the_limits_and_is_emitted_as_designed():
    cells = design(LIMITS)
    assert all(LIMITS.hold(cell) for cell in cells) and len(set(cells)) == len(cells)
    seen = set()
    for batch, index, num_tokens in drive(cells):
        if index < 0:
            continue
        cell = cells[index]
        seen.add(index)
        assert batch.num_tokens == num_tokens == cell.num_tokens
        assert batch.num_decode_tokens == len(cell.decodes)
        grown = batch.decode_context_tokens - sum(cell.decodes)
        assert grown in range(
            0, cell.repeats * max(1, len(cell.decodes)), max(1, len(cell.decodes))
        )
        assert [chunk.num_tokens for chunk in batch.chunks] == [
            tokens for tokens, _ in sorted_by_prior(cell)
        ]
        for chunk, (tokens, prior) in zip(batch.chunks, sorted_by_prior(cell), strict=True):
            assert (chunk.context_tokens - prior) in (
                {0} if prior == 0 else {i * tokens for i in range(cell.repeats)}
            )
    assert seen == set(range(len(cells)))


def sorted_by_prior(cell):
    return sorted(cell.chunks, key=lambda chunk: chunk[1] == 0)


def test_the_grid_has_what_tells_the_terms_apart():
    cells = design(LIMITS)
    decodes = [cell.decodes for cell in cells if not cell.chunks]
    assert any(len(set(contexts)) > 1 for contexts in decodes), "skewed contexts"
    assert any(cell.chunks and not cell.decodes and cell.chunks[0][1] for cell in cells), (
        "chunks on a prior context"
    )
    assert any(len(cell.chunks) > 1 for cell in cells), "several prompts at once"
    assert any(cell.chunks and cell.decodes for cell in cells), "both in one step"


def test_the_grid_has_steps_just_beyond_a_tile_of_the_gemms():
    limits = replace(
        LIMITS, max_num_seqs=9, max_num_batched_tokens=1024, max_model_len=1024, num_blocks=640
    )
    steps = [cell for cell in design(limits) if cell.chunks]
    for tokens in (513, 768):
        found = [cell for cell in steps if cell.num_tokens == tokens]
        assert {len(cell.decodes) for cell in found} == {0, 8}
    assert not {cell.num_tokens for cell in design(LIMITS)} & {513, 768}


def test_whole_prompts_go_beyond_the_token_budget_as_static_batches_do():
    def largest(cells):
        return max(cell.num_tokens for cell in cells if not cell.decodes)

    limits = replace(LIMITS, max_prefill_tokens=200)
    assert largest(design(LIMITS)) == 64
    beyond = [cell for cell in design(limits) if cell.num_tokens > 64]
    assert 128 <= largest(beyond) <= 200
    assert all(not cell.decodes and {prior for _, prior in cell.chunks} == {0} for cell in beyond)


def test_an_iteration_is_measured_only_where_one_of_its_like_follows():
    """The host prepares the next batch meanwhile; its work shows in the time of the one before."""
    batches = drive([Cell((20, 20), repeats=2), Cell(chunks=((16, 0), (16, 0)))])
    for (batch, index, _), (following, _, _) in pairwise(batches):
        if index >= 0:
            assert [c.num_tokens for c in batch.chunks] == [c.num_tokens for c in following.chunks]
            assert batch.num_decode_tokens == following.num_decode_tokens


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_profile_is_a_result_of_single_iterations(lookahead, models, torch_backend, tmp_path):
    result = profile(
        models["tiny-qwen3"],
        torch_backend,
        LIMITS,
        1.0,
        lookahead=lookahead,
        clock="cpu",
        meta={"seed": 5},
    )
    loaded = Result.load(result.save(tmp_path))
    iterations = loaded.iterations
    assert set(ITERATION_COLUMNS) | {"device_s", "host_s", "cell"} <= set(iterations.columns)
    assert (iterations["repeat"] == 1).all() and (
        iterations["duration_s"] >= iterations["device_s"]
    ).all()
    assert loaded.meta["seed"] == 5 and loaded.meta["num_cells"] == len(design(LIMITS))


def test_the_command_writes_a_folder_and_says_how_much_it_covered(tmp_path, capsys):
    machine = MachineFlags(backend="torch", model="tiny-llama", clock="cpu")
    grid = GridFlags(max_num_seqs=2, max_model_len=64, max_num_batched_tokens=32)
    assert cli_profile.profile(machine=machine, grid=grid, budget="500ms", out=tmp_path) == 0
    assert "designed shapes" in capsys.readouterr().out
    assert json.loads((tmp_path / "meta.json").read_text())["model"] == "tiny-llama"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"budget": "soon"}, "'soon' is no duration"),
        ({"grid": GridFlags(max_num_seqs=0)}, "--max-num-seqs is 0; it must be 1 or more"),
        ({"budget": "0s"}, "nothing was measured in a budget of 0 s"),
        (
            {"grid": GridFlags(max_model_len=10)},
            "no iteration of the grid fits requests of 10 tokens .*--max-model-len 26",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(flags, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        cli_profile.profile(
            machine=MachineFlags(backend="torch", model="tiny-llama"), out=tmp_path, **flags
        )
