"""Table [cluster]: what it describes, says of mistakes, and commands make of it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.cli import main
from busdoor.cluster import ROUTERS
from busdoor.cluster.per_replica import imbalance, replica_table, result_of
from busdoor.comparison.api import compare
from busdoor.comparison.comparison import Comparison
from busdoor.comparison.folder import to_perfetto
from busdoor.config import Config, load_config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.results.result import Result
from busdoor.simulator.simulate import Interrupted, simulate
from busdoor.step_time.calibration_files import calibration_names
from busdoor.sweep import plan
from busdoor.sweep.task import run_point

WORKLOAD = {
    "input_tokens": {"type": "uniform", "low": 10, "high": 200},
    "output_tokens": {"type": "exponential", "mean": 30, "max": 200},
    "num_requests": 120,
    "request_rate": 40.0,
}
SMALL = {"workload": WORKLOAD, "policy": "vllm", "kv": {"num_blocks": 400}, "replications": 1}
POOLS = """
[policy]
name = "vllm"
[gpu]
price_per_hour = 3.0
[cluster]
router = {name = "prefix_affinity", min_match = 0.5}
[[cluster.pool]]
replicas = 2
weight = 2.0
gpu = {tp = 2}
[[cluster.pool]]
replicas = 3
gpu = {name = "l40s"}
kv = {block_size = 32}
policy = {max_num_batched_tokens = 512}
"""
APART = """
policy = ["vllm"]
[cluster]
router = "round_robin"
decode_router = "least_kv"
link_bytes_per_s = 50e9
link_latency_s = "10us"
[[cluster.pool]]
role = "prefill"
[[cluster.pool]]
role = "decode"
replicas = 2
gpu = {name = "h200"}
"""


def written(folder, text):
    file = folder / "study.toml"
    file.write_text(text)
    return file


def served(table):
    config = Config.from_table(table)
    trace = config.workload.trace(config.seed)
    return run(config, config.policies[0], trace, limits_for(config, [trace]))


def small(**cluster):
    return {**SMALL, "cluster": cluster}


def test_a_pool_changes_single_keys_of_the_tables_outside(tmp_path):
    config = load_config(written(tmp_path, POOLS))
    large, other = config.pools
    assert (large.gpu.name.name, large.gpu.tp, other.gpu.name.name, other.gpu.tp) == (
        "h100",
        2,
        "l40s",
        1,
    )
    assert (large.kv.block_size, other.kv.block_size) == (16, 32)
    assert (large.step_time.describe()["tp"], other.step_time.describe()["gpu"]) == (2, "l40s")
    assert (config.num_gpus, config.hardware) == (7, "2 × (2 × h100) + 3 × l40s")


def test_each_pools_gpu_chooses_the_limits_that_nobody_set(tmp_path):
    config = load_config(written(tmp_path, POOLS))
    limits = [pool.policy_of(config.policies[0]).config for pool in config.pools]
    assert [(own.max_num_seqs, own.max_num_batched_tokens) for own in limits] == [
        (1024, 8192),
        (256, 512),
    ]


def test_what_somebody_set_holds_on_every_gpu():
    table = {
        "policy": {"name": "vllm", "max_num_seqs": 1024},
        "cluster": {"pool": [{"gpu": {"name": "l40s"}}]},
    }
    config = Config.from_table(table)
    assert config.pools[0].policy_of(config.policies[0]).config.max_num_seqs == 1024


def test_a_price_is_that_of_the_gpu_it_was_said_of(tmp_path):
    assert load_config(written(tmp_path, POOLS)).price_per_hour is None
    assert (
        load_config(
            written(tmp_path, POOLS.replace('"l40s"', '"l40s", price_per_hour = 1.0'))
        ).price_per_hour
        == 15
    )


def test_a_pool_may_run_another_policy():
    cluster = {"pool": [{}, {"policy": {"name": "static", "batch_size": 8}}]}
    assert served({**SMALL, "cluster": cluster}).meta["policy_config"]["name"] == "vllm"
    parts = served({**SMALL, "cluster": cluster}).meta["replicas"]
    assert [(part["policy"], part["num_slots"]) for part in parts] == [
        ("vllm", 1024),
        ("static", 8),
    ]


@pytest.mark.parametrize("text", [POOLS, APART, "[cluster]\nreplicas = 3\nrouter = 'random'"])
def test_what_is_noted_builds_the_same_configuration_again(tmp_path, text):
    config = load_config(written(tmp_path, text))
    again = Config.from_table(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert again == config
    limits = [pool.policy_of(again.policies[0]).config for pool in again.pools]
    assert limits == [pool.policy_of(config.policies[0]).config for pool in config.pools]


SENTENCES = {
    "[cluster]\nreplicas = 0": "line 2: [cluster] replicas = 0: input should be greater than 0",
    "[cluster]\nreplica = 4": "line 2: [cluster] replica: unknown; did you mean replicas?",
    '[cluster]\nrouter = "random"': "line 1: [cluster] has no servers; say replicas = 4 "
    "(--replicas 4), or give it "
    "[[cluster.pool]]",
    '[cluster]\nreplicas = 2\nrouter = "round_robbin"': "line 3: [cluster] router: 'round_robbin' "
    "is not a router; did "
    "you mean 'round_robin'? (known: least_kv, least_outstanding, power_of_two, prefix_affinity, "
    "random, round_robin, "
    "session_affinity, session_hash, shortest_queue)",
    '[cluster]\nreplicas = 2\nrouter = {name = "random", min_match = 1}': "line 3: [cluster] "
    "router: 'random' has no "
    "settings, so 'min_match' is not one of them",
    "[cluster]\nreplicas = 2\n[[cluster.pool]]": "line 2: [cluster] replicas = 2: each "
    "[[cluster.pool]] says how many "
    "it has; leave it out here",
    "[cluster]\nreplicas = 2\nlink_bytes_per_s = 1e9": "line 3: [cluster] link_bytes_per_s: it is "
    "for pools with "
    'role = "prefill" and "decode"',
    '[cluster]\nlink_bytes_per_s = 1e9\n[[cluster.pool]]\nrole = "prefill"': "line 3: [cluster] "
    "has a prefill pool but "
    'no decode pool; give it a pool with role = "decode"',
    '[cluster]\n[[cluster.pool]]\nrole = "decode"': "line 2: [cluster] has a decode pool but no "
    "prefill pool; give it "
    'a pool with role = "prefill"',
    '[[cluster.pool]]\nrole = "prefill"\n[[cluster.pool]]\nrole = "decode"': "[cluster] "
    "link_bytes_per_s is missing: "
    "bytes per second at which a prefill server sends KV, as in link_bytes_per_s = 50e9 for a "
    "link of 400 Gbit/s",
    '[[cluster.pool]]\nrole = "prefil"': "line 2: [[cluster.pool]] 1 role = 'prefil': input "
    "should be 'prefill' or "
    "'decode'",
    '[[cluster.pool]]\n[[cluster.pool]]\nreplicas = 2\ngpu = {name = "h10"}': "line 4: "
    "[[cluster.pool]] 2: [gpu] name: "
    "'h10' is not a GPU of the catalogue; did you mean 'h100'? (known: a10, a100-40gb, a100-80gb, "
    "a10g, a30, a40, "
    "b200, b300, gb200, gb300, gh200, h100, ... and 19 more)",
    "[[cluster.pool]]\ncount = 2": "line 2: [[cluster.pool]] 1: count: unknown; it may have gpu, "
    "kv, measured, policy, "
    "replicas, role, step_time, weight",
    "[[cluster.pool]]\npolicy = {max_num_seq = 2}": "line 2: [[cluster.pool]] 1: [policy] "
    "max_num_seq: unknown; did "
    "you mean max_num_seqs?",
    '[step_time]\nname = "linear"\nbase_s = 1\n[[cluster.pool]]\ngpu = {name = '
    '"h200"}': "line 5: [[cluster.pool]] 1: "
    "gpu = {'name': 'h200'}: the LinearStepTime of [step_time] is another GPU's; give the pool a "
    "step_time too",
    '[[cluster.pool]]\n[[cluster.pool]]\ngpu = {model = "qwen3-8b"}': "[cluster] has pools with "
    "llama-3.1-8b and "
    "qwen3-8b; all replicas have to serve the same model",
    '[sweep]\n"cluster.replicas" = [1, 2]': "[sweep]: this file is a study of many "
    "configurations; run it "
    "with busdoor sweep, or take the table out",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_a_mistake_is_one_sentence_with_file_line_and_what_would_be_right(tmp_path, text):
    file = written(tmp_path, text)
    with pytest.raises(ValueError) as error:
        load_config(file)
    separator = ", " if SENTENCES[text].startswith("line") else ": "
    assert str(error.value) == f"{file}{separator}{SENTENCES[text]}"


def test_decode_servers_have_to_take_in_kv_that_was_computed_elsewhere(tmp_path):
    config = load_config(written(tmp_path, APART.replace("vllm", "static")))
    trace = config.workload.trace().select(np.arange(3))
    with pytest.raises(
        ValueError, match="decode replica 0 runs StaticPolicy, which cannot take in KV"
    ):
        run(config, config.policies[0], trace, limits_for(config, [trace]))


CLUSTERS = st.fixed_dictionaries(
    {"router": st.sampled_from(sorted(ROUTERS)), "replicas": st.integers(1, 5)}
)


@settings(max_examples=25, deadline=None)
@given(
    router=st.sampled_from(sorted(ROUTERS)),
    policy=st.sampled_from(
        ["static", "dynamic", "orca", "vllm", "prefill_first", "tgi", "transformers", "trtllm"]
    ),
    as_pool=st.booleans(),
    lookahead=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
)
def test_a_cluster_of_one_is_the_server_itself_to_the_last_bit(
    router, policy, as_pool, lookahead, seed
):
    table = {**SMALL, "policy": policy, "lookahead": lookahead, "seed": seed}
    cluster = {"router": router, **({"pool": [{"replicas": 1}]} if as_pool else {"replicas": 1})}
    alone, cluster = served(table), served({**table, "cluster": cluster})
    for name in ("requests", "iterations", "stays"):
        pd.testing.assert_frame_equal(
            getattr(cluster, name), getattr(alone, name), check_exact=True
        )
    pd.testing.assert_series_equal(cluster.summary, alone.summary, check_exact=True)


@settings(max_examples=12, deadline=None)
@given(cluster=CLUSTERS, policy=st.sampled_from(["static", "vllm"]), seed=st.integers(0, 99))
def test_every_request_is_served_by_one_replica(cluster, policy, seed):
    result = served({**SMALL, "policy": policy, "seed": seed, "cluster": cluster})
    table = replica_table(result)
    assert len(table) == cluster["replicas"] == result.meta["num_replicas"]
    assert result.requests["request_id"].tolist() == list(range(120))
    assert table["requests"].tolist() == [
        len(result_of(result, i).requests) for i in range(cluster["replicas"])
    ]
    assert table["requests"].sum() == 120
    tokens = result.summary["total_input_tokens"] + result.summary["total_output_tokens"]
    assert table["tokens"].sum() == tokens
    assert table["imbalance"].mean() == pytest.approx(1)
    assert imbalance(result) == table["imbalance"].max()


def test_pools_apart_share_each_request_by_its_parts():
    pools = [{"role": "prefill", "replicas": 2}, {"role": "decode", "replicas": 3}]
    result = served({**SMALL, "cluster": {"pool": pools, "link_bytes_per_s": 50e9}})
    table = replica_table(result)
    assert table["role"].tolist() == ["prefill"] * 2 + ["decode"] * 3
    by_role = table.groupby("role")["requests"].sum()
    sent = int(result.requests["transfer_end_s"].notna().sum())
    assert (by_role["prefill"], by_role["decode"]) == (120, sent)
    assert (
        table[table["role"] == "prefill"]["tokens"].sum() == result.requests["input_tokens"].sum()
    )
    seconds = result.requests["transfer_end_s"] - result.requests["transfer_start_s"]
    wire_s = result.requests["input_tokens"] * 131072 / 50e9  # llama-3.1-8b: 128 KiB a token
    np.testing.assert_allclose(seconds.dropna(), wire_s[seconds.notna()])


def test_routers_of_other_replications_draw_anew():
    config = Config.from_table(small(replicas=4, router="random"))
    trace = config.workload.trace(0)
    limits = limits_for(config, [trace])
    of = [
        run(config, config.policies[0], trace, limits, meta={"replication": i}).requests
        for i in (0, 0, 1)
    ]
    assert of[0].equals(of[1]) and not of[0]["replica"].equals(of[2]["replica"])


@pytest.mark.parametrize(
    "cluster", [{"replicas": 3}, {"pool": [{"role": "prefill"}, {"role": "decode"}]}]
)
def test_an_interrupted_cluster_keeps_what_it_has(cluster):
    link = {} if "replicas" in cluster else {"link_bytes_per_s": 50e9}
    config = Config.from_table(
        {**SMALL, "workload": {**WORKLOAD, "num_requests": 1500}, "cluster": cluster | link}
    )
    trace = config.workload.trace(0)

    def stop(done, total):
        if done >= 1000:  # on a busy machine there are reports before
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        run(config, config.policies[0], trace, limits_for(config, [trace]), progress=stop)
    requests = caught.value.result.requests
    assert requests["request_id"].tolist() == list(range(1500))
    assert 900 < (requests["status"] == "finished").sum() < 1100
    assert set(requests["status"]) == {"finished", "unfinished"}


class TestMeasuredStepTimes:
    def test_a_calibration_is_every_servers(self):
        name = calibration_names()[0]
        result = served(small(replicas=2) | {"step_time": {"name": "calibrated", "path": name}})
        assert {part["step_time"]["name"] for part in result.meta["replicas"]} == {"calibrated"}

    def test_tensor_parallel_servers_are_so_many_gpus_each(self):
        config = Config.from_table(small(replicas=3) | {"gpu": {"tp": 2, "price_per_hour": 1.5}})
        assert (config.num_gpus, config.price_per_hour, config.hardware) == (
            6,
            9.0,
            "3 × (2 × h100)",
        )
        assert config.pools[0].step_time.describe()["tp"] == 2


@pytest.fixture(scope="module")
def both():
    static = {"name": "static", "batch_size": 8}
    common = {"replications": 1, "kv": {"num_blocks": 2000}, "gpu_options": {"price_per_hour": 2.0}}
    workload = WORKLOAD | {"num_requests": 400, "request_rate": 100.0}
    one = compare(workload, [static, "vllm"], **common)
    return one, compare(workload, [static, "vllm"], cluster={"replicas": 3}, **common)


class TestCompare:
    def test_three_servers_carry_three_times_what_one_does(self, both):
        one, three = (comparison.table["saturated_output_throughput"] for comparison in both)
        np.testing.assert_allclose(three / one, 3, rtol=0.06)

    def test_the_gpus_that_a_load_needs_do_not_depend_on_how_many_were_simulated(self, both):
        one, three = (comparison.table for comparison in both)
        np.testing.assert_allclose(3 * three["offered_load"], one["offered_load"], rtol=0.06)
        assert three["gpus"].tolist() == np.ceil(3 * three["offered_load"]).tolist()
        assert three["cost_per_hour"].tolist() == (2 * three["gpus"]).tolist()

    def test_policies_meet_the_same_requests_and_each_tells_its_servers(
        self, both, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("busdoor.comparison.folder.save_plots", lambda *arguments: [])
        folder = both[1].save(tmp_path)
        again = Comparison.load(folder)
        assert again.config == both[1].config
        rows = pd.read_csv(folder / "results" / "vllm" / "replicas.csv")
        assert rows["requests"].sum() == 400
        assert both[1].table.loc["vllm", "imbalance"] == pytest.approx(rows["imbalance"].max())
        assert "imbalance" not in both[0].table

    def test_every_server_is_a_process_of_one_timeline(self, both, tmp_path):
        to_perfetto(both[1], tmp_path / "all.json")
        events = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
        assert {event["pid"] for event in events} == set(range(6))


class TestSweep:
    def test_routers_and_replicas_are_axes(self):
        table = small(replicas=1) | {
            "sweep": {"cluster.router": ["random", "least_kv"], "cluster.replicas": [1, 4]}
        }
        points = plan(table)
        assert [
            (p.parameters["cluster.router"], p.parameters["cluster.replicas"]) for p in points
        ] == [
            ("random", 1),
            ("random", 4),
            ("least_kv", 1),
            ("least_kv", 4),
        ]
        assert len({point.key for point in points}) == 4
        metrics = run_point(points[3].table)
        assert metrics["num_slots"] == [4096.0] and metrics["imbalance"][0] >= 1

    def test_a_price_is_that_of_all_servers(self):
        cost = [
            run_point(small(replicas=count) | {"gpu": {"price_per_hour": 2.0}, "policy": "vllm"})
            for count in (1, 2)
        ]
        hourly = [
            m["cost_per_million_output_tokens"][0] * m["output_throughput"][0] * 3600 / 1e6
            for m in cost
        ]
        assert hourly == pytest.approx([2.0, 4.0])


class TestCommands:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "one.toml").write_text('[policy]\nname = "vllm"\n[kv]\nnum_blocks = 400\n')
        (tmp_path / "trace.csv").write_text(
            "arrival_s,input_tokens,output_tokens\n"
            + "".join(f"{i / 20},{20 + i},{5 + i % 7}\n" for i in range(40))
        )
        return tmp_path

    def test_simulate_tells_the_servers_apart(self, folder, capsys):
        flags = "--replicas 3 --router prefix_affinity,max_lead=4 --out out --json"
        assert main(f"simulate trace.csv --config one.toml {flags}".split()) == 0
        line, err = capsys.readouterr()
        saved = pd.read_csv(folder / "out" / "replicas.csv")
        said = json.loads(line)["replicas"]
        assert [row["requests"] for row in said] == saved["requests"].tolist()
        assert sum(row["requests"] for row in said) == 40
        assert any(line.startswith("2 h100") for line in err.splitlines())
        meta = Result.load(folder / "out").meta
        assert meta["config"]["cluster"]["router"] == {"name": "prefix_affinity", "max_lead": 4}
        assert Config.from_table(meta["config"]).cluster.replicas == 3

    def test_a_pools_calibration_is_looked_for_beside_the_file(self, folder, capsys):
        (folder / "sub").mkdir()
        numbers = "base_s = 5.0\nper_token_s = [0.0]\n"
        (folder / "sub" / "mine.toml").write_text(f'[step_time]\nname = "calibrated"\n{numbers}')
        (folder / "sub" / "pools.toml").write_text(
            '[cluster]\n[[cluster.pool]]\nstep_time = {name = "calibrated", path = "mine.toml"}\n'
        )
        assert main(["simulate", "trace.csv", "--config", "sub/pools.toml", "--out", "out"]) == 0
        assert Result.load(folder / "out").requests["first_token_s"].min() == 5.0

    def test_one_server_is_told_as_before(self, folder, capsys):
        assert (
            main(["simulate", "trace.csv", "--config", "one.toml", "--out", "out", "--json"]) == 0
        )
        assert "replicas" not in json.loads(capsys.readouterr().out.splitlines()[-1])
        assert not (folder / "out" / "replicas.csv").exists()

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            ("--replicas 0", "[cluster] replicas = 0: input should be greater than 0"),
            (
                "--router random",
                "[cluster] has no servers; say replicas = 4 (--replicas 4), or give it "
                "[[cluster.pool]]",
            ),
            (
                "--replicas 2 --router prefix_affinity,min",
                "--router prefix_affinity,min: 'min' is no FIELD=VALUE; write it as in "
                "prefix_affinity,min_match=0.5",
            ),
        ],
    )
    def test_a_mistake_is_one_sentence_and_exit_code_2(self, folder, capsys, flags, sentence):
        assert main(f"simulate trace.csv {flags}".split()) == 2
        assert capsys.readouterr().err == f"busdoor: {sentence}\n"


def test_simulate_is_what_one_server_still_runs():
    config = Config.from_table(SMALL)
    trace = config.workload.trace(0)
    limits = limits_for(config, [trace])
    bare = simulate(
        trace, config.policies[0].build(limits.kv, trace), config.step_time, engine=config.engine
    )
    pd.testing.assert_frame_equal(
        run(config, config.policies[0], trace, limits).requests, bare.requests
    )
