"""What has one meaning: [slo] for all commands, keys in several tables, whole batches."""

import json
import typing

import pytest

from busdoor.capacity import Study, make_study
from busdoor.cli import main
from busdoor.config import Config, load_config
from busdoor.config.cluster import ClusterTable, PoolTable
from busdoor.config.policy import PolicyTable
from busdoor.config.server_tables import GPUTable, KVTable
from busdoor.config.workload import WorkloadTable
from busdoor.kv.config import KVConfig
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_presets import PRESETS
from busdoor.policies import POLICIES, policy_config
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor.sweep.task import run_point
from busdoor_workloads import Trace

TABLES = {
    "plain": {"ttft": "2s", "e2e": "40s"},
    "goodput": {"e2e": "50s", "goodput": 0.75},
    "percentile": {"ttft_p99": "2s"},
    "mean": {"e2e_mean": "45s", "itl_p99": "1s"},
    **{name: {"preset": name} for name in list(PRESETS)[:1] + list(PRESETS)[-1:]},
}
WORKLOAD = {"name": "azure-conv", "num_requests": 40, "request_rate": 1.0}


def config_of(slo: dict[str, object]) -> Config:
    return Config.from_table(
        {"policy": "vllm", "slo": slo, "workload": WORKLOAD, "replications": 1}
    )


@pytest.mark.parametrize("name", TABLES)
def test_one_table_gives_one_list_of_targets_to_every_command(name, tmp_path):
    targets = SLO.from_table(TABLES[name]).targets
    config = config_of(TABLES[name])
    assert config.slo.targets == targets
    assert make_study(config).slo.targets == targets
    assert Config.from_table(json.loads(json.dumps(config.to_dict()))).slo.targets == targets
    keys = {f"slo_{target.key}" for target in targets}
    found = slo_shares(Result.example(), config.slo)
    assert keys <= set(found.index)
    swept = run_point(config.to_dict())
    assert {key for key in swept if key.startswith("slo_")} == set(found.index)


def test_a_plain_limit_is_met_by_simulate_as_by_capacity(tmp_path, capsys):
    """A hundredth of the requests may be late: 1 of 120 is met, 2 of 120 are missed."""
    (tmp_path / "study.toml").write_text('[slo]\ne2e = "60s"\n[policy]\nname = "vllm"\n')
    assert load_config(tmp_path / "study.toml").slo.targets[0].share == 0.99
    for late, met in ((1, "yes"), (2, "no")):
        rows = [f"{60 * n},10,{9000 if n < late else 10}" for n in range(120)]
        (tmp_path / "trace.csv").write_text(
            "\n".join(["arrival_s,input_tokens,output_tokens", *rows])
        )
        flags = ["--config", str(tmp_path / "study.toml"), "--out", str(tmp_path / f"out{late}")]
        assert main(["simulate", str(tmp_path / "trace.csv"), *flags]) == 0
        assert ["SLO", "met", met] in [
            line.split() for line in capsys.readouterr().out.splitlines()
        ]


def test_every_request_within_the_limits_cannot_be_shown_by_sampling():
    assert config_of({"e2e": "60s", "goodput": 1}).slo.targets[0].share == 1
    with pytest.raises(ValueError, match=r"\[slo\] goodput = 1.0: .* not provable by sampling"):
        make_study(config_of({"e2e": "60s", "goodput": 1}))


def test_a_study_without_any_limit_is_refused():
    with pytest.raises(ValueError, match=r"\[slo\] has no limit; give one"):
        make_study(config_of({}))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "llama-2-70b",
            "TPOT p99 ≤ 200 ms (mlperf-llama2-70b-server) is only a default; give yours",
        ),
        (
            "qwen3-14b",
            "(mlperf-llama3.1-8b-server) is only a default, as MLPerf has none for qwen3-14b; "
            "give yours",
        ),
    ],
)
def test_an_slo_that_nobody_gave_is_said_to_be_a_default(model, said, capsys, monkeypatch):
    def stopped(study):
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", stopped)
    flags = ["--model", model, "--gpu", "b200", "--num-requests", "10", "--jobs", "1"]
    assert main(["capacity", *flags]) == 130
    assert said in capsys.readouterr().err
    assert main(["capacity", "--slo", "ttft=1s", *flags]) == 130
    assert "default" not in capsys.readouterr().err


def definition(annotation: object) -> object:
    """Return what a key may hold; whether it may be left out depends on the table."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    optional = type(None) in typing.get_args(annotation)
    return parts[0] if optional and len(parts) == 1 else annotation


def test_a_key_that_stands_in_two_tables_has_one_definition():
    """All but `name`, of which every table has its own."""
    tables = [
        *POLICIES.values(),
        Config,
        ClusterTable,
        PoolTable,
        GPUTable,
        KVTable,
        WorkloadTable,
        PolicyTable,
    ]
    found: dict[str, dict[str, object]] = {}
    for table in tables:
        for key, annotation in typing.get_type_hints(table, include_extras=True).items():
            if key in getattr(table, "__dataclass_fields__", {}) and key != "name":
                found.setdefault(key, {})[table.__name__] = definition(annotation)
    assert len(found) > 40
    assert {key: own for key, own in found.items() if len(set(map(str, own.values()))) > 1} == {}


WHOLE_BATCH = {
    "static": True,
    "dynamic": True,
    "multi_bin": True,
    "orca": False,
    "vllm": False,
    "prefill_first": False,
    "tgi": False,
    "transformers": False,
    "trtllm": False,
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_says_whether_it_runs_whole_batches(name):
    trace = Trace(arrival_s=[0.0] * 5, input_tokens=[10] * 5, output_tokens=[3, 5, 9, 2, 7])
    limit = {"batch_size": 2} if WHOLE_BATCH[name] else {"max_num_seqs": 2}
    more = (
        {"waiting_served_ratio": 0.1} if name == "tgi" else {}
    )  # else it waits until more wait than run
    policy = policy_config(name, **limit, **more).build(
        KVConfig(num_blocks=400, max_model_len=2048), trace
    )
    assert policy.whole_batch == WHOLE_BATCH[name]
    result = simulate(trace, policy, LinearStepTime(base_s=0.1))
    assert result.meta["whole_batch"] == WHOLE_BATCH[name]
    entered, left = result.stays["enter_s"].to_numpy(), result.stays["leave_s"].to_numpy()
    among_others = any(((entered < at - 1e-9) & (left > at + 1e-9)).any() for at in entered)
    assert among_others != WHOLE_BATCH[name]
