"""A server's twin by address: calibrated at some rates, it predicts others beforehand."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from busdoor.observe.how import How
from busdoor.observe.stand_in import stand_in
from busdoor.observe.twin.folder import runs_in
from busdoor.observe.twin.make import Plan, make_twin
from busdoor.observe.twin.page import twin_page
from busdoor.observe.twin.prediction import ServerModel
from busdoor.results.result import Result
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

from .conftest import small_policy

POLICY = {"name": "vllm", "max_num_seqs": 8, "max_num_batched_tokens": 256}


def drawn(seed, n, rate):
    draws = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.cumsum(draws.exponential(1 / rate, n)) if rate < np.inf else np.zeros(n),
        input_tokens=draws.integers(10, 250, n),
        output_tokens=draws.integers(2, 40, n),
        name=f"rate-{rate:g}",
    )


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A server of 10 ms and 0.1 ms per token, seen by its requests alone."""
    folder = tmp_path_factory.mktemp("twin")
    with stand_in(small_policy(), LinearStepTime(base_s=0.010, per_token_s=1e-4)) as url:
        plan = Plan(
            url,
            {"a": drawn(1, 60, 4), "b": drawn(2, 60, 12)},
            {"c": drawn(3, 50, 8), "d": drawn(4, 24, np.inf)},
            How(),
            policy=POLICY,
            static={"d": 4},
            force=True,  # a busy machine's fit may be doubtful
        )
        return make_twin(plan, folder), folder, plan


def test_the_step_time_is_found_again(twin):
    found, _, _ = twin
    terms = found.calibration.step_time
    assert terms.base_s == pytest.approx(0.010, rel=0.15)


def test_the_prediction_was_written_before_the_run(twin):
    _, folder, _ = twin
    written = json.loads((folder / "predictions" / "c.json").read_text())["written_at"]
    assert written < Result.load(folder / "runs" / "c").meta["started_at"]


def test_errors_have_their_interval_and_milliseconds(twin):
    found, folder, _ = twin
    table = found.table[found.table["run"] == "c"].set_index("quantity")
    assert abs(table.loc["tpot_mean", "error"]) < 0.10
    assert table.loc["e2e_mean", "error_ms"] == pytest.approx(
        1e3 * (table.loc["e2e_mean", "predicted"] - table.loc["e2e_mean", "measured"])
    )
    assert (table["n"] == 50).all()
    assert 0 < table.loc["e2e_mean", "half_width"] < 0.5
    assert (folder / "predictions.csv").exists()


def test_what_is_measured_is_not_measured_again(twin):
    found, folder, plan = twin
    again = make_twin(plan, folder)  # the server is gone
    assert again.table.equals(found.table)


def test_a_prediction_after_its_run_is_refused(twin):
    _, folder, plan = twin
    file = folder / "predictions" / "c.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "written_at": 9e9}))
    with pytest.raises(ValueError, match=r"predictions/c\.json was written after c was measured"):
        make_twin(plan, folder)
    file.write_text(json.dumps(document))


def test_static_batches_are_predicted_as_they_are_sent(twin):
    """24 requests at once in batches of 4: each batch begins when the one before has ended."""
    found, folder, plan = twin
    table = found.table[found.table["run"] == "d"].set_index("quantity")
    assert table.loc["saturated_rate", "error"] == pytest.approx(0, abs=0.2)
    model = ServerModel(
        found.calibration.step_time, runs_in(folder, ["a"])[0].client.meta, 0.01, POLICY
    )
    requests = model.predict(plan.predicted["d"], static=4).requests
    starts, ends = (
        requests[key].to_numpy().reshape(6, 4) for key in ("first_scheduled_s", "finish_s")
    )
    assert (np.ptp(starts, axis=1) == 0).all()
    assert (np.ptp(ends, axis=1) == 0).all()
    assert starts[1:, 0].tolist() == ends[:-1, 0].tolist()


def test_a_doubtful_fit_to_requests_predicts_nothing_unless_forced(twin, tmp_path):
    _, folder, plan = twin
    shutil.copytree(folder / "runs" / "a", tmp_path / "runs" / "a")
    shutil.copytree(folder / "runs" / "b", tmp_path / "runs" / "b")
    file = tmp_path / "runs" / "a" / "meta.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "client": {"doubts": ["the client slept"]}}))
    with pytest.raises(
        ValueError, match=r"^nothing is predicted, because .*the client slept.*; --force"
    ):
        make_twin(replace(plan, force=False), tmp_path)
    assert not (tmp_path / "predictions").exists()


def test_its_page_has_every_run_and_regime(twin):
    _, folder, _ = twin
    page = twin_page(folder).html()
    for text in ("Errors by load", "Run by run", "&gt; 1: E2E p99", ">burst</td>", "within"):
        assert text in page, text
