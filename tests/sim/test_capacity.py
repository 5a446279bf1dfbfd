"""The search for the highest rate that meets an SLO, against closed forms and by its own rules."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from busdoor.capacity import (
    Capacity,
    capacity,
    capacity_of,
    hourly_rates,
    make_study,
    plan,
    plan_day,
    replicas_needed,
)
from busdoor.capacity.bracket import Search
from busdoor.capacity.control.fcfs import Backlog, backlogs
from busdoor.capacity.control.stand_in import StandIn
from busdoor.capacity.control.static import WholeBatches
from busdoor.capacity.control.variate import Control, controlled_interval
from busdoor.capacity.draws import reference, unit_rate
from busdoor.capacity.estimate import Outcome, Reading, bounds
from busdoor.capacity.figures import plot_target
from busdoor.capacity.folder import load
from busdoor.capacity.least import find_least
from busdoor.capacity.policy_search import Solver
from busdoor.capacity.runs import Runs
from busdoor.capacity.steady_state import Window, settling_requests, steady_window, warmup
from busdoor.capacity.trial import Probe
from busdoor.cli import main
from busdoor.config import Config, load_config
from busdoor.config.limits import limits_for
from busdoor.kv.config import KVConfig
from busdoor.metrics.slo import SLO, slo_table
from busdoor.metrics.slo_target import Target
from busdoor.metrics.statistics import mean_interval
from busdoor.policies import Policy, policy_config
from busdoor.step_time import LinearStepTime
from busdoor.theory import StepLine, saturated_continuous_rps, saturated_static_rps, sharing_load
from busdoor_workloads import Trace

LINE = StepLine(base_s=0.020, per_request_s=0.0005)
STEP_TIME = {"name": "linear", "base_s": 0.020, "per_request_s": 0.0005}
CHAT = {
    "input_tokens": 1,
    "output_tokens": {"type": "uniform", "low": 1, "high": 127},
    "arrival": 1.0,
}
MEAN_OUTPUT = 64.0
MEMORY = KVConfig(num_blocks=1000, max_model_len=64)


def linear(
    policies: list[dict[str, object]], slo: str, *, replications: int = 5, **options: object
) -> Capacity:
    """Find capacities where closed forms are exact: linear step time, and memory for all."""
    kv = {"num_blocks": 100_000}
    return capacity(
        {**CHAT, "name": "chat"},
        policies,
        slo,
        step_time=STEP_TIME,
        kv=kv,
        replications=replications,
        **options,
    )


# The SLO


def test_flags_make_targets_on_means_percentiles_and_shares() -> None:
    slo = SLO.from_table(
        slo_table(["ttft_p99=2s", "normalized_mean=0.05", "tpot=100ms"], goodput=0.95)
    )
    assert [(target.key, dict(target.limits_s), target.share) for target in slo.targets] == [
        ("ttft_p99", {"ttft": 2.0}, 0.99),
        ("normalized_mean", {"normalized": 0.05}, None),
        ("goodput", {"tpot": 0.1}, 0.95),
    ]


def test_a_preset_may_be_changed_in_part() -> None:
    slo = SLO.from_table(slo_table(["mlperf-llama3.1-8b-server", "tpot_p99=80ms"]))
    assert slo.to_dict() == {"ttft_p99": 2.0, "tpot_p99": 0.08}


def test_distserve_counts_nine_requests_of_ten() -> None:
    (target,) = SLO.from_table({"preset": "distserve-chat-66b"}).targets
    assert (target.key, target.share, dict(target.limits_s)) == (
        "goodput",
        0.9,
        {"ttft": 0.4, "tpot": 0.1},
    )


@pytest.mark.parametrize(
    ("flags", "goodput", "sentence"),
    [
        (["ttft_p9=2parsecs"], None, r"\[slo\] ttft_p9: '2parsecs' is no duration"),
        (["tftt_p99=2s"], None, r"\[slo\] tftt_p99: unknown; did you mean ttft_p99\?"),
        (["ttft_max=2s"], None, r"\[slo\] ttft_max: unknown"),
        (["mlperf-llama3-8b-server"], None, r"did you mean 'mlperf-llama3.1-8b-server'"),
        (["ttft_p99=0"], None, r"\[slo\] ttft_p99 = 0.0: it must be over 0 seconds"),
        (["itl=50ms"], None, r"pooled over all requests, .* give itl_p99"),
        (["ttft_p99=2s"], 0.9, r"goodput = 0.9 has no limit to count by"),
    ],
)
def test_a_wrong_promise_is_one_sentence(
    flags: list[str], goodput: float | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        SLO.from_table(slo_table(flags, goodput))
    assert "\n" not in str(error.value)


# What of a run is measured


def test_the_window_leaves_out_as_many_requests_as_come_while_one_is_answered() -> None:
    assert steady_window(np.full((3, 1000), 2.0), request_rate=10.0) == (20, 980, True)


def test_a_run_that_is_mostly_filling_and_draining_has_no_steady_window() -> None:
    assert steady_window(np.full((3, 100), 4.0), request_rate=10.0) == (25, 75, False)


@given(st.integers(20, 200))
def test_the_warmup_holds_a_ramp(ramp: int) -> None:
    noise = np.random.default_rng(ramp).normal(size=1000)
    assert ramp - 15 <= warmup((np.minimum(np.arange(1000) / ramp, 1) * 50 + noise)[None]) <= 500


@given(st.integers(20, 200))
def test_a_queue_that_comes_early_is_no_warmup(burst: int) -> None:
    noise = np.random.default_rng(burst).normal(size=1000)
    assert warmup((np.maximum(1 - np.arange(1000) / burst, 0) * 50 + noise)[None]) == 0


def test_a_run_too_short_for_its_load_to_settle_cannot_keep_a_promise() -> None:
    def outcome(num_requests: int) -> Outcome:
        kept = Reading("ttft_p99", np.zeros(8), 0.01, 0.5, 0.25)
        settling = settling_requests(0.95, 19.0, 2.0, 0.99)
        return Probe(19.0, num_requests, (kept,), Window(100, 900, steady=True), settling).outcome

    assert (outcome(3000), outcome(3300)) == (Outcome.OPEN, Outcome.MEETS)


def test_where_waits_stay_far_from_the_limit_nothing_has_to_settle() -> None:
    assert settling_requests(0.98, 19.0, 3600.0, 0.99) == 0


# What luck explains


def test_the_control_takes_luck_off_and_keeps_its_word() -> None:
    """Of 500 M/M/1 studies, nine of ten intervals cover the truth, half as wide as without."""
    rng = np.random.default_rng(1)

    def waits(count: int) -> np.ndarray:
        return backlogs(rng.exponential(size=(count, 999)), rng.exponential(0.7, (count, 1000)))

    many = waits(4000)
    truth, beyond = float(many.mean()), float(np.quantile(many, 0.9))
    error = float((many > beyond).mean(axis=1).std()) / 4000**0.5
    covered, widths = 0, []
    for runs in np.split(waits(5000), 500):
        control = Control((runs > beyond).mean(axis=1) - (many > beyond).mean(), error)
        values = runs.mean(axis=1)
        interval = controlled_interval(values, control, 0.9)
        covered += interval.low <= truth <= interval.high
        widths.append(interval.half_width / mean_interval(values, 0.9).half_width)
    assert 0.85 < covered / 500 < 0.95
    assert np.median(widths) < 0.5


SPIKE = {
    "process": "spike",
    "request_rate": 1.0,
    "spike_rate": 3.0,
    "start_s": 500,
    "duration_s": 500,
}


@pytest.mark.parametrize(
    "workload", [{"name": "code"}, {"name": "chat", "arrival": SPIKE}], ids=["bursts", "spike"]
)
def test_a_reference_expects_what_the_beginnings_of_longer_draws_do(workload: dict) -> None:
    """A spike comes once, early; a reference from later parts of a draw would not know it."""
    table = {"workload": workload, "policy": "vllm", "replications": 64}
    unit = unit_rate(Config.from_table(table), 4000)
    longer = [unit.workload.trace(unit.seed, number) for number in range(unit.replications)]
    work_s = np.asarray(longer[0].output_tokens.mean())
    stand_in = StandIn(longer, reference(unit), Backlog(lambda trace: trace.output_tokens / work_s))
    whole = Target("ttft_mean", {"ttft": 1.0}, None)
    (control,) = stand_in.controls([whole], [1.0], 0.8, 1000, Window(250, 1000, steady=True))
    error = (control.values.var(ddof=1) / len(control.values) + control.error**2) ** 0.5
    assert abs(control.values.mean()) < 4 * error
    assert control.error < 0.3 * control.values.std()


def test_a_reference_names_no_blocks_which_would_take_gigabytes() -> None:
    unit = unit_rate(
        Config.from_table({"workload": {"name": "prefix_repetition"}, "policy": "vllm"}), 100
    )
    drawn, run = reference(unit)(100)[0], unit.workload.trace(unit.seed, unit.replications)
    assert np.array_equal(drawn.input_tokens, run.input_tokens) and np.array_equal(
        drawn.arrival_s, run.arrival_s
    )
    assert max(map(len, drawn.hash_ids)) == 1 < max(map(len, run.hash_ids))


def test_a_control_that_is_far_from_its_average_is_left_out() -> None:
    values, far = (
        np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        Control(np.array([-9.0, -9.0, -9.0, -9.0, -8.9]), 0.1),
    )
    assert controlled_interval(values, far, 0.9) == mean_interval(values, 0.9)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("release", ["batch", "request"])
@pytest.mark.parametrize("reads", ["own", "padded"])
def test_static_batching_is_what_the_simulator_does(
    batch_size: int, release: str, reads: str
) -> None:
    """All but the last batch, which leaves half full when no arrival is left."""
    policy = {"name": "static", "batch_size": batch_size, "release": release, "decode_reads": reads}
    config = unit_rate(
        Config.from_table(
            {
                "workload": {"name": "azure-conv"},
                "policy": policy,
                "replications": 2,
                "engine": "busdoor",  # the queue has no front end
                "lookahead": 0,
            }
        ),
        203,
    )
    traces = [config.workload.trace(config.seed, number) for number in range(2)]
    samples = Runs(config, traces, limits_for(config, traces)).at_rate(
        config.policies[0], 0.6, 203, 2
    )
    queue = WholeBatches(
        config.step_time, batch_size, release == "request", reads_padding=reads == "padded"
    )
    lateness = queue.lateness(queue.draws(traces, 203), 0.6)
    for latency in ["ttft", "e2e", "normalized", "tpot"][: 4 if release == "request" else 3]:
        run_s = np.stack([sample.latencies_s[latency].fillna(0.0) for sample in samples])
        known_s = lateness(Target(f"{latency}_p99", {latency: 1.0}, 0.99))
        assert known_s[:, :200] == pytest.approx(run_s[:, :200], rel=1e-3)


def test_the_closed_form_keeps_its_word_where_hardly_any_run_has_a_queue() -> None:
    """Eight short runs at the limit: most see none late; nine of ten intervals know better."""
    rng = np.random.default_rng(2)

    def late(count: int) -> np.ndarray:
        return (
            backlogs(rng.exponential(size=(count, 299)), rng.exponential(0.75, (count, 300)))[
                :, 100:
            ]
            > 14.0
        )

    truth = float(late(40_000).mean())
    target, queue = (
        Target("ttft_p99", {"ttft": 1.0}, 0.99),
        WholeBatches(LinearStepTime(base_s=1.0), 1, True),
    )
    covered = plain = 0
    for _ in range(200):
        runs, others = late(8), late(500)
        control = queue.control(target, 2.0 * runs, 2.0 * others, 1.0)
        low, high = bounds(runs.mean(axis=1), control)
        covered += low <= truth <= high
        low, high = bounds(runs.mean(axis=1))
        plain += low <= truth <= high
    assert covered > 0.85 * 200 > plain


def test_near_its_limit_a_run_is_not_believed_because_nobody_happened_to_be_late() -> None:
    """A server whose waits are almost the queue's, at its limit, seen in eight short runs."""
    rng = np.random.default_rng(3)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        gaps, seen, unseen = (
            rng.exponential(size=(count, 999)),
            *rng.exponential(size=(2, count, 1000)),
        )
        server, queue = (
            backlogs(gaps, 0.85 * work) for work in ((seen + unseen) / 2, (seen + 1) / 2)
        )
        return server[:, 100:], queue[:, 100:]

    many, others = draw(4000)
    limit_s = float(np.quantile(many, 0.99))
    target, queue = (
        Target("ttft_p99", {"ttft": limit_s}, 0.99),
        Backlog(lambda trace: np.zeros(len(trace))),
    )
    misled = blinded = 0
    for _ in range(100):
        late, own = draw(8)
        risks = (late > limit_s).mean(axis=1)
        misled += bounds(risks, queue.control(target, own, others[:500], 1.0))[1] < 0.01
        blinded += bounds(risks)[1] < 0.01
    assert misled < 0.12 * 100 < 0.3 * 100 < blinded


def test_a_batch_size_that_nobody_chose_is_the_same_in_all_draws() -> None:
    laws = {
        "workload": {"name": "azure-conv"},
        "policy": "static",
        "replications": 4,
        "slo": {"e2e_p99": 60.0},
    }
    config = Config.from_table(laws)
    study = make_study(config, num_requests=100)
    solver = Solver(study.runs, study.slo, 100, 5, 0.02, lambda *what: None)
    policy, limits = (
        config.policies[0].capped(study.runs.limits.max_output_tokens),
        study.runs.limits,
    )
    sizes = {policy.build(limits.kv, trace).num_slots for trace in study.runs.traces}
    assert len(sizes) > 1
    assert solver.settled(config.policies[0]).config.batch_size == min(sizes)


# The bracket


def fake(limit_rps: float, least_rps: float = 0.0, blur: float = 0.0, spread: float = 1.0):
    """Make a server that meets its SLO between two rates; longer runs blur near ones less."""

    def attempt(request_rate: float, doublings: int) -> Probe:
        ratio = max(request_rate / limit_rps, least_rps / request_rate) ** spread
        noise = blur / 2**doublings
        reading = Reading("e2e_p99", np.array([ratio - noise, ratio + noise]), 1.0, ratio, ratio)
        return Probe(request_rate, 1000 << doublings, (reading,), None)

    return attempt


@given(st.floats(0.001, 1.0), st.floats(0.2, 8.0), st.sampled_from([0.0, 0.005, 0.02]))
@example(0.85, 1.0, 0.02)  # a rate right at the limit, which no run is long enough to decide
def test_the_bracket_is_narrow_and_holds_the_answer(
    share: float, spread: float, blur: float
) -> None:
    search = Search(fake(100 * share, spread=spread, blur=blur), 100.0, 0.02, 4)
    search.run()
    assert search.low is not None and search.high is not None
    assert (
        search.low.request_rate * (1 - 1e-9) <= 100 * share <= search.high.request_rate * (1 + 1e-9)
    )
    assert (
        search.decided
        or search.doublings == 4
        or sum(p.num_requests for p in search.probes) > 16_000
    )
    assert len(search.probes) < 60


@given(st.floats(0.4, 0.9), st.floats(1.25, 3.0))
def test_whole_batches_keep_a_promise_only_where_they_fill_fast_enough(
    share: float, width: float
) -> None:
    search = Search(fake(100 * share, least_rps=100 * share / width), 100.0, 0.02, 4)
    search.run()
    assert search.low is not None and search.decided
    assert search.rate == pytest.approx(100 * share, rel=0.02)


@given(st.floats(0.4, 0.9), st.floats(1.5, 500.0), st.sampled_from([0.0, 0.01]))
def test_the_lowest_rate_is_bracketed_as_the_highest_is(
    share: float, width: float, blur: float
) -> None:
    least_rps = 100 * share / width
    attempt = fake(100 * share, least_rps=least_rps, blur=blur)
    met = attempt(90 * share, 4)
    assert met.outcome is Outcome.MEETS
    least = find_least(bus(), [], attempt, met, 0.02, 4)
    assert least.decided and least.misses <= least_rps <= least.meets < 1.11 * least.misses
    assert len(least.probes) < 25


def bus(max_wait_s: float = math.inf) -> Policy:
    return policy_config("static", batch_size=8, max_wait_s=max_wait_s).build(MEMORY)


def test_where_batches_leave_after_a_while_every_lower_rate_may_meet() -> None:
    least = find_least(bus(max_wait_s=1.0), [], fake(10.0), fake(10.0)(9.0, 0), 0.02, 4)
    assert (least.meets, least.misses) == (0.0, 0.0)
    assert min(probe.request_rate for probe in least.probes) < 0.3


def test_requests_that_wait_for_no_others_cost_no_runs_to_know_that_every_lower_rate_meets() -> (
    None
):
    door, kept = policy_config("vllm").build(MEMORY), Reading("e2e_p99", np.zeros(8), 0.01, 1, 0.5)

    def never(request_rate: float, doublings: int) -> Probe:
        raise AssertionError(f"{request_rate} was tried")

    assert find_least(door, [kept], never, fake(10.0)(9.0, 0), 0.02, 4).meets == 0


CASES = Path(__file__).parents[1] / "cases"


def test_whole_batches_that_fill_too_slowly_serve_no_low_rate() -> None:
    """Eight requests a batch, a second each: at one a second the first waits for seven."""
    study = make_study(load_config(CASES / "capacity" / "default.toml", {"slo": {"e2e_p90": "3s"}}))
    solver = Solver(study.runs, study.slo, 400, 5, 0.02, lambda *what: None)
    answer = solver.solve(study.runs.config.policies[0])
    assert (
        3
        < answer.least_misses
        < answer.least
        < 4
        < 7
        < answer.low
        < answer.rate
        < answer.high
        < 7.6
    )
    study._keep(0, answer)
    found = capacity_of(study)
    assert found.plan(1.0).loc["static"].isna().all()
    assert found.plan(20.0).loc["static", ["replicas", "headroom", "may_fall"]].tolist() == [
        3, pytest.approx(3 * answer.low / 20 - 1), pytest.approx(1 - 3 * answer.least / 20),
    ]  # fmt: skip
    assert "With static no number of servers is sure to serve 1." in found.verdict(1.0)
    assert found.plan_day([1.0, 5.0])["static"].isna().tolist() == [True, False]
    assert (
        found.fixed_fleet([1.0, 5.0]).isna().all() and found.fixed_fleet([4.0, 5.0])["static"] == 1
    )


def test_no_rate_is_found_where_latencies_are_too_long_at_all() -> None:
    search = Search(fake(40.0, least_rps=60.0), 100.0, 0.02, 4)
    search.run()
    assert search.low is None and search.rate == 0.0


def test_a_rate_that_stays_open_is_tried_with_longer_runs() -> None:
    search = Search(fake(70.0, blur=0.01), 100.0, 0.02, 4)
    search.run()
    lengths = [probe.num_requests for probe in search.probes]
    assert lengths == sorted(lengths) and lengths[-1] > 1000
    assert search.low is not None and search.high is not None
    assert 0.96 * 70 < search.low.request_rate < 70 < search.high.request_rate < 1.04 * 70
    assert Outcome.OPEN in {probe.outcome for probe in search.probes}


def test_a_load_that_only_lacks_time_to_settle_is_run_as_long_as_that_takes() -> None:
    def attempt(request_rate: float, doublings: int) -> Probe:
        load = Reading(
            "stability", np.full(2, request_rate / 99), 1.0, request_rate / 99, request_rate / 99
        )
        kept = Reading("e2e_p99", np.zeros(2), 0.01, 0.1, 0.1)
        settling = settling_requests(request_rate / 99, request_rate, 0.1, 0.99)
        return Probe(
            request_rate, 1000 << doublings, (kept, load), Window(0, 1000, steady=True), settling
        )

    search = Search(attempt, 100.0, 0.02, 5)
    search.run()
    assert (
        search.decided and len([probe for probe in search.probes if probe.num_requests > 1000]) == 1
    )


@given(st.floats(0.02, 0.95), st.floats(0.9, 1.1))
def test_a_search_may_begin_near_what_is_known(share: float, error: float) -> None:
    search = Search(fake(100 * share), 100.0, 0.02, 4, begin_rps=110 * share * error)
    search.run()
    assert search.low is not None and search.high is not None
    assert search.decided and search.low.request_rate <= 100 * share <= search.high.request_rate
    assert len(search.probes) < 12


# Against closed forms


def test_a_promise_of_stability_alone_is_kept_up_to_the_saturated_rate_of_continuous_batching() -> (
    None
):
    found = linear([{"name": "vllm", "max_num_seqs": 16}], "e2e_p99=1h", tolerance=0.01)
    assert found.table.loc["vllm", "binds"] == "stability"
    assert found.table.loc["vllm", "request_rate"] == pytest.approx(
        saturated_continuous_rps(LINE, 16, MEAN_OUTPUT), rel=0.01
    )


def test_a_promise_of_stability_alone_is_kept_up_to_the_saturated_rate_of_static_batching() -> None:
    found = linear(
        [{"name": "dynamic", "batch_size": 8, "max_wait_s": 1e9}], "e2e_p99=1h", tolerance=0.01
    )
    longest = 127 - sum((k / 127) ** 8 for k in range(1, 127))  # E[max of 8] of uniform 1..127
    carried = saturated_static_rps(LINE, 8, MEAN_OUTPUT, longest)
    assert found.table.loc["dynamic", "request_rate"] == pytest.approx(carried, rel=0.01)


@pytest.mark.parametrize("load", [0.5, 0.75])
def test_a_promise_on_mean_tpot_is_kept_up_to_the_rate_of_processor_sharing(load: float) -> None:
    tpot_s = LINE.step_s(1) / (1 - load)
    found = linear([{"name": "vllm", "max_num_seqs": 512}], f"tpot_mean={tpot_s}", max_doublings=2)
    rate = load / sharing_load(1.0, LINE, MEAN_OUTPUT)
    assert found.table.loc["vllm", "binds"] == "tpot_mean"
    assert found.table.loc["vllm", "request_rate"] == pytest.approx(rate, rel=0.03)


# Policies that cannot, and those that can


@pytest.fixture(scope="module")
def found() -> Capacity:
    static = {"name": "static", "batch_size": 8}
    return linear(
        [static, {"name": "vllm", "max_num_seqs": 64}],
        "e2e_p99=15s",
        tolerance=0.1,
        num_requests=200,
        max_doublings=1,
    )


def test_static_is_shown_at_its_default_and_at_its_best_whole_and_streamed(found: Capacity) -> None:
    names = [name.rstrip("0123456789)").strip() for name in found.table.index]
    assert names == [
        "static",
        "static (streamed",
        "static (best batch",
        "static (streamed, best batch",
        "vllm",
    ]
    assert found.table["low"].iloc[2] >= 0.95 * found.table["low"].iloc[0]


def test_every_rate_and_replication_is_in_the_history(found: Capacity) -> None:
    own = found.history[found.history["policy"] == "vllm"]
    assert (own.groupby(["request_rate", "num_requests"]).size().isin([2, 5])).all()
    assert {"e2e_p99", "stability", "outcome", "warmup_share", "drain_share"} <= set(own)


def test_low_meets_and_high_misses(found: Capacity) -> None:
    answer = found.answers[-1]
    assert answer.at_low is not None and answer.at_low.outcome is Outcome.MEETS
    assert {p.outcome for p in answer.probes if p.request_rate == answer.high} == {Outcome.MISSES}


def test_a_study_can_be_drawn_saved_and_told(found: Capacity, tmp_path) -> None:
    folder = found.save(tmp_path / "out", request_rate=40.0)
    files = {"capacity.json", "table.csv", "history.csv", "points.csv", "plan.csv", "plots"}
    assert files == {path.name for path in folder.iterdir()}
    assert json.loads((folder / "capacity.json").read_text())["plan"]["vllm"]["replicas"] >= 1
    assert found.plot("e2e_p99").get_ylabel() == "E2E p99"
    assert len(plot_target(load(folder), "e2e_p99").get_lines()) == len(
        found.plot("e2e_p99").get_lines()
    )
    assert "40 requests/s need" in found.verdict(40.0)


def test_the_command_plot_draws_a_saved_study_again(found: Capacity, tmp_path, capsys) -> None:
    folder = found.save(tmp_path / "out")
    (folder / "plots" / "capacity.png").unlink()
    assert main(["plot", str(folder)]) == 0
    assert (
        folder / "plots" / "capacity.png"
    ).exists() and "capacity.svg" in capsys.readouterr().out


def test_a_curve_has_points_far_below_the_answer_and_a_limit_inside_the_axes(
    found: Capacity,
) -> None:
    own = found.points.query("policy == 'vllm' and target == 'e2e_p99' and steady")[
        "request_rate"
    ].unique()
    assert len(own) >= 5 and min(own) < 0.3 * found.low["vllm"]
    (bottom, top), limit_s = found.plot("e2e_p99").get_ylim(), found.slo.targets[0].limit_s
    assert 1.1 * bottom < limit_s < top / 1.1


def test_no_two_rows_look_alike(found: Capacity) -> None:
    lines = found.plot("e2e_p99").get_lines()[:-1]
    assert (
        len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines})
        == len(lines)
        >= 3
    )


def test_a_file_that_is_too_short_is_told_apart_from_a_workload_that_can_be_lengthened() -> None:
    rng = np.random.default_rng(0)
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(size=150)),
        input_tokens=rng.integers(1, 900, 150),
        output_tokens=rng.integers(1, 200, 150),
        name="short",
    )
    (reason,) = capacity(trace, ["vllm"], "ttft_p99=1s", replications=4).table["reason"]
    assert (
        "runs of 150 requests are too short" in reason
        and "never lengthened: give a longer one" in reason
    )


def test_a_batch_released_whole_has_no_time_per_token_and_a_lone_request_may_be_too_slow() -> None:
    policies = [{"name": "dynamic"}, {"name": "vllm", "max_num_seqs": 64}]
    table = linear(
        policies, "tpot_p99=30ms", tolerance=0.2, num_requests=200, replications=3, max_doublings=1
    ).table
    assert table.loc["dynamic", "low"] == 0 and "released whole" in table.loc["dynamic", "reason"]
    with pytest.raises(
        ValueError, match=r"no policy meets .* vllm: a lone request already has E2E p99 2.*over 1 s"
    ):
        linear(policies[1:], "e2e_p99=1s", num_requests=200)


def test_refused_requests_are_counted_and_are_no_load(tmp_path: Path) -> None:
    """A fifth of the file is longer than the model takes; the rest is another file's."""
    whole, rest = (
        capacity(
            str(CASES / f"06-{name}.csv"), ["vllm"], "ttft_p99=2s", tolerance=0.2, replications=3
        )
        for name in ("fifth-refused", "without-the-refused")
    )
    pd.testing.assert_frame_equal(whole.table, rest.table)
    assert (whole.refused.num, whole.refused.of, rest.refused.num) == (120, 600, 0)
    assert "400100 tokens exceed max_model_len 131072" in str(whole.refused)
    for file in whole.save(tmp_path / "out").glob("*.*"):
        assert not any(word in file.read_text() for word in ("1e+18", ",inf", "NaN", "Infinity")), (
            file
        )


def test_requests_that_one_policy_refuses_are_no_load_of_that_policy() -> None:
    """A tenth has prompts over one's budget; the rest comes as fast as all for the other."""
    inputs = np.where(np.arange(200) % 10 == 0, 400, 20)
    trace = Trace(
        arrival_s=np.arange(200.0),
        input_tokens=inputs,
        output_tokens=np.full(200, 20),
        name="two kinds",
    )
    policies = [
        {"name": "vllm"},
        {"name": "orca", "max_num_batched_tokens": 100, "max_num_seqs": 64},
    ]
    config = Config.from_table({"policy": policies, "replications": 1, "slo": {"e2e": "9s"}})
    study = make_study(config, trace)
    assert study.runs.refused.num == 0
    solver = Solver(study.runs, study.slo, 100, 0, 0.2, lambda *what: None)
    taken, fewer = (solver._serving(policy).runs for policy in study.runs.config.policies)
    assert taken is study.runs
    assert (fewer.refused.num, len(fewer.traces[0])) == (
        20,
        180,
    ) and fewer.spent is study.runs.spent
    assert fewer.traces[0].request_rate == pytest.approx(study.runs.traces[0].request_rate)


def test_a_trace_of_which_all_is_refused_is_one_sentence() -> None:
    trace = Trace(arrival_s=[0, 1], input_tokens=[500_000] * 2, output_tokens=[5, 5], name="long")
    with pytest.raises(
        ValueError, match=r"long: 2 of 2 requests are refused, .*500005 tokens exceed max_model_len"
    ):
        capacity(trace, ["vllm"], "ttft_p99=2s", replications=1)


def test_requests_whose_clients_give_up_are_late_and_said_to_be_never_answered() -> None:
    lengths = {"input_tokens": 64, "output_tokens": 64, "timeout_s": 0.001}
    with pytest.raises(ValueError, match="TTFT p99 of requests that are never answered, over 2 s"):
        capacity(lengths, ["vllm"], "ttft_p99=2s", replications=2, num_requests=40)


def test_traces_without_requests_or_without_a_rate_are_refused() -> None:
    empty = Trace(arrival_s=[], input_tokens=[], output_tokens=[], name="nobody")
    with pytest.raises(ValueError, match="nobody has no requests"):
        capacity(empty, ["vllm"])
    loop = Trace(
        arrival_s=[0, 0], input_tokens=[5, 5], output_tokens=[5, 5], concurrency=2, name="users"
    )
    with pytest.raises(ValueError, match="users is a closed loop"):
        capacity(loop, ["vllm"])


# From a rate to GPUs


@given(st.floats(0.1, 1e4), st.floats(0.01, 1e3))
def test_replicas_carry_the_rate_and_one_less_would_not(rate: float, low: float) -> None:
    number = replicas_needed(rate, low)
    assert number * low >= rate * (1 - 1e-9)
    assert (number - 1) * low < rate


@given(st.floats(0.1, 1e3), st.floats(0.01, 1e3), st.floats(0.0, 1.0))
def test_each_replica_s_rate_is_one_that_a_server_is_known_to_meet_the_slo_at(
    rate: float, low: float, share: float
) -> None:
    """And where there is no plan, no number of servers would have done."""
    number = replicas_needed(rate, low, share * low)
    if not math.isnan(number):
        assert share * low * (1 - 1e-9) <= rate / number <= low * (1 + 1e-9)
    else:
        assert not any(
            share * low <= rate / replicas <= low for replicas in range(1, int(2 * rate / low) + 3)
        )


def test_the_plan_prices_servers_and_tokens() -> None:
    table = plan(
        pd.Series({"static": 4.0, "never": 0.0}),
        40.0,
        mean_output_tokens=100,
        tp=2,
        price_per_hour=3.0,
    )
    assert table.loc["static", ["replicas", "gpus", "cost_per_hour"]].tolist() == [10, 20, 60]
    assert table.loc["static", "cost_per_million_output_tokens"] == pytest.approx(
        60 / (40 * 100 * 3600) * 1e6
    )
    assert table.loc["never"].drop("headroom").isna().all() and math.isnan(
        table.loc["never", "headroom"]
    )


def test_a_day_needs_fewer_servers_at_night() -> None:
    day = plan_day(pd.Series({"vllm": 10.0}), hourly_rates("4", peak_rps=40.0))
    assert (day["vllm"].min(), day["vllm"].max(), len(day)) == (1.0, 4.0, 24)


def test_hourly_rates_are_read_from_a_file(tmp_path) -> None:
    (tmp_path / "day.csv").write_text("hour,request_rate\n0,3\n1,5.5\n")
    assert hourly_rates(str(tmp_path / "day.csv")) == [3.0, 5.5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_hours_are_put_in_order_and_a_byte_order_mark_is_no_part_of_them(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "day.csv").write_text("hour,request_rate\n2,3\n3,5.5\n1,4\n", encoding=encoding)
    assert hourly_rates(str(tmp_path / "day.csv")) == [4.0, 3.0, 5.5]
    (tmp_path / "plain.csv").write_text("7\n8\n", encoding=encoding)
    assert hourly_rates(str(tmp_path / "plain.csv")) == [7.0, 8.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hour,request_rate\n1,3\n1,4\n", "column hour: 1, 1; it has to have each hour once"),
        (
            "hour,request_rate\n1,3\n3,4\n",
            "column hour: 1, 3; it has to have each hour once, with none left out",
        ),
        ("hour,request_rate\nnoon,3\n", "column hour: 'noon' is no whole hour"),
        ("hour,request_rate\n1\n", "row 2: it has 1 fields, and the header 2"),
        ("day,request_rate\n1,3\n", "it may have hour and request_rate, each once"),
        ("", "is empty"),
        ("hour,request_rate\n", "is empty"),
    ],
)
def test_a_wrong_file_of_hours_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "day.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        hourly_rates(str(tmp_path / "day.csv"))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [("day.cvs", "'day.cvs' is neither"), ("0.5", "1 or more"), ("1,-2", "'-2'")],
)
def test_a_wrong_day_is_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        hourly_rates(spec, 40.0)


# The command


def test_the_command_prints_one_line_of_json_last(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "study.toml"
    config.write_text(
        'replications = 4\n[slo]\ne2e_p99 = "1min"\n[policy]\nname = "vllm"\nmax_num_seqs = 32\n'
    )
    flags = [
        "--config",
        str(config),
        "--slo",
        "e2e_p99=8s",
        "--num-requests",
        "200",
        "--tolerance",
        "0.1",
    ]
    plan = ["--rate", "40", "--diurnal", "2", "--gpu-price", "2.5", "--jobs", "1"]
    assert main(["capacity", *flags, *plan, "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["slo"] == {"e2e_p99": 8.0} and found["plan"]["vllm"]["cost_per_hour"] > 0
    assert found["replications"] == 4 and len(found["hours"]) == 24
    assert (tmp_path / "out" / "history.csv").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--slo", "speed=2s"], "[slo] speed: unknown"),
        (
            ["--slo", "ttft_p99=1us", "--policy", "vllm", "--num-requests", "100"],
            "no policy meets the SLO",
        ),
        (["--slo", "ttft_p99=2s", "--diurnal", "3"], "give the peak's rate, --rate"),
        (["--workload", "nowhere.csv"], "there is no file"),
        (["--tolerance", "3"], "tolerance is 3.0"),
        (["--tolerance", "0"], "tolerance is 0.0"),
        (["--num-requests", "0"], "num_requests is 0"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capacity", "--jobs", "1", *flags]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="starting processes takes seconds there")
def test_processes_give_the_same_numbers() -> None:
    def table(jobs: int) -> pd.DataFrame:
        return capacity(
            "azure-conv",
            ["orca", "vllm"],
            "e2e_p99=8s",
            num_requests=100,
            replications=4,
            tolerance=0.2,
            jobs=jobs,
        ).table

    pd.testing.assert_frame_equal(table(1), table(2))


def test_a_policy_that_does_not_fit_the_memory_is_told_so_and_the_others_are_answered() -> None:
    policies = [{"name": "orca"}, {"name": "vllm", "max_num_seqs": 8}]
    kv = {"num_blocks": 100, "block_size": 16, "max_model_len": 2048}
    lengths = {"input_tokens": 64, "output_tokens": 16}
    table = capacity(
        lengths,
        policies,
        "e2e_p99=60s",
        kv=kv,
        num_requests=100,
        replications=3,
        tolerance=0.2,
        max_doublings=1,
    ).table
    assert (
        table.loc["orca", "low"] == 0
        and "more than the cache's 1600" in table.loc["orca", "reason"]
    )
    assert table.loc["vllm", "low"] > 0
