"""What a study's [sweep] table means: which points there are, and how they are called."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.config import Config
from busdoor.sweep import key, load_plan, plan
from busdoor.sweep.axes import combinations
from busdoor.sweep.key import point_key

STUDY = """
replications = 1
[workload]
input_tokens = {type = "uniform", low = 64, high = 64}
output_tokens = {type = "uniform", low = 1, high = 20}
num_requests = 30
[kv]
num_blocks = 500
[policy]
name = "vllm"
[sweep]
"gpu.name" = ["h100", "l40s"]
workload.request_rate = [4, 8, 12]
"""


def parameters(table):
    return [point.parameters for point in plan(table)]


def test_every_value_meets_every_other_and_the_last_key_turns_fastest(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    points = load_plan(tmp_path / "study.toml")
    assert [(p.parameters["gpu.name"], p.parameters["workload.request_rate"]) for p in points] == [
        ("h100", 4), ("h100", 8), ("h100", 12), ("l40s", 4), ("l40s", 8), ("l40s", 12),
    ]  # fmt: skip
    config = Config.from_table(points[5].table)
    assert (config.gpu.name.name, config.workload.request_rate, config.kv.num_blocks) == (
        "l40s",
        12.0,
        500,
    )
    assert len({point.key for point in points}) == 6


def test_zip_pairs_values():
    sweep = {"seed": [1, 2], "policy.max_num_seqs": [8, 16], "combine": "zip"}
    assert parameters({"policy": "vllm", "sweep": sweep}) == [
        {"seed": 1, "policy.max_num_seqs": 8, "policy": "vllm"},
        {"seed": 2, "policy.max_num_seqs": 16, "policy": "vllm"},
    ]


def test_every_policy_of_a_configuration_is_a_point():
    table = {"policy": ["static", "vllm"], "sweep": {"kv.num_blocks": [1000, 2000]}}
    assert [point["policy"] for point in parameters(table)] == ["static", "vllm", "static", "vllm"]


def test_policies_can_be_swept_by_name_or_as_tables():
    by_name = parameters(
        {
            "policy": {"name": "vllm", "max_num_seqs": 9},
            "sweep": {"policy.name": ["static", "orca"]},
        }
    )
    assert [point["policy"] for point in by_name] == ["static", "orca"]
    tables = plan({"sweep": {"policy": ["static", {"name": "vllm", "max_num_seqs": 3}]}})
    assert [point.parameters for point in tables] == [
        {"policy": "static"},
        {"policy.max_num_seqs": 3, "policy": "vllm"},
    ]
    assert tables[1].table["policy"][0]["max_num_seqs"] == 3


def test_a_field_goes_to_the_policies_that_have_it_and_the_others_run_once():
    table = {
        "policy": ["static", "vllm"],
        "sweep": {"policy.max_num_batched_tokens": [2048, 4096, 8192]},
    }
    assert [point["policy"] for point in parameters(table)] == ["static", "vllm", "vllm", "vllm"]


def test_a_whole_table_can_be_swept_so_that_its_keys_go_together():
    gpus = [{"name": "h100", "price_per_hour": 3.0}, {"name": "h200", "price_per_hour": 4.0}]
    assert parameters({"policy": "vllm", "sweep": {"gpu": gpus, "gpu.tp": [1, 2]}})[2] == {
        "gpu.name": "h200", "gpu.price_per_hour": 4.0, "gpu.tp": 1, "policy": "vllm",
    }  # fmt: skip


def test_what_cannot_be_built_is_a_point_with_its_reason_if_others_can():
    points = plan({"policy": "vllm", "sweep": {"gpu.model": ["llama-3.1-8b", "llama-3.1-70b"]}})
    assert points[0].error == ""
    assert "does not fit" in points[1].error
    assert points[1].parameters["gpu.model"] == "llama-3.1-70b"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            '"gpu.nam" = ["h100"]',
            r"study\.toml, line 12: \[gpu\] nam: unknown; did you mean name\?",
        ),
        ('"gppu.name" = ["h100"]', r"line 12: \[sweep\] gppu: unknown; did you mean gpu\?"),
        (
            '"policy.max_num_seq" = [1]',
            r"line 12: \[sweep\] policy\.max_num_seq: unknown; did you mean policy\.max_num",
        ),
        ('"policy.name" = ["vlm"]', "'vlm' is not a policy; did you mean 'vllm'"),
        (
            '"gpu.name" = "h100"',
            r'line 12: \[sweep\] gpu.name = "h100": it must be a list of values',
        ),
        ('"kv.num_blocks" = []', r"line 12: \[sweep\] kv.num_blocks = \[\]: it needs a value"),
        ('"kv.num_blocks" = [0]', r"line 12: \[kv\] num_blocks = 0"),
        ('combine = "all"', "names nothing to vary"),
        (
            'combine = "all"\nseed = [1]',
            r"\[sweep\] combine = 'all': it must be 'product' or 'zip'",
        ),
        (
            'combine = "zip"\nseed = [1]\n"gpu.tp" = [1, 2]',
            "same length, but seed has 1, gpu.tp has 2",
        ),
    ],
)
def test_mistakes_are_one_sentence_with_their_line(tmp_path, line, said):
    (tmp_path / "study.toml").write_text(STUDY[: STUDY.index('"gpu.name"')] + line + "\n")
    with pytest.raises(ValueError, match=said) as caught:
        load_plan(tmp_path / "study.toml")
    assert "\n" not in str(caught.value)


def test_a_study_needs_a_sweep():
    with pytest.raises(ValueError, match=r"has no table \[sweep\]"):
        plan({"policy": "vllm"})


VALUES = st.lists(st.integers(0, 9), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from(["seed", "kv.num_blocks", "gpu.tp"]), VALUES, min_size=1))
def test_a_product_has_every_combination_once(lists):
    rows = combinations(lists)
    expected = 1
    for values in lists.values():
        expected *= len(values)
    assert len(rows) == expected
    assert all(row[name] in lists[name] for row in rows for name in lists)


def test_the_key_does_not_depend_on_the_order_of_keys_or_on_labels():
    table = Config.from_table(
        {"policy": {"name": "vllm"}, "kv": {"num_blocks": 50}, "seed": 4}
    ).to_dict()

    def turned(value):
        return (
            {name: turned(value[name]) for name in reversed(value)}
            if isinstance(value, dict)
            else value
        )

    assert list(turned(table)) != list(table)
    assert point_key(turned(table)) == point_key(table)
    assert point_key(json.loads(json.dumps(table))) == point_key(table)
    named = {**table, "policy": [{**table["policy"][0], "label": "ours"}]}
    assert point_key(named) == point_key(table)
    assert point_key({**table, "seed": 5}) != point_key(table)


def test_spelling_out_a_default_does_not_change_the_key():
    plain = plan({"policy": "vllm", "sweep": {"seed": [0]}})
    spelt = plan(
        {
            "policy": {"name": "vllm", "prefix_caching": False},
            "kv": {"block_size": 16},
            "sweep": {"seed": [0]},
        }
    )
    assert plain[0].key == spelt[0].key


def test_another_version_is_another_key(monkeypatch):
    (point,) = plan({"policy": "vllm", "sweep": {"seed": [0]}})
    monkeypatch.setattr(key, "__version__", "99.0")
    assert point_key(point.table) != point.key


def test_a_trace_file_counts_by_what_is_in_it_not_by_where_it_lies(tmp_path):
    def key_of(name, text):
        (tmp_path / name).write_text("arrival_s,input_tokens,output_tokens\n" + text)
        (point,) = plan(
            {"policy": "vllm", "workload": {"path": str(tmp_path / name)}, "sweep": {"seed": [0]}}
        )
        return point.key

    first = key_of("a.csv", "0,10,5\n1,20,5\n")
    assert key_of("b.csv", "0,10,5\n1,20,5\n") == first
    assert key_of("a.csv", "0,10,5\n1,20,500\n") != first


def test_relative_trace_files_start_at_the_study_and_are_handed_on_whole(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n")
    (tmp_path / "study.toml").write_text(
        'policy = "vllm"\n[workload]\npath = "t.csv"\n[sweep]\nseed = [1]\n'
    )
    (point,) = load_plan(tmp_path / "study.toml")
    assert point.table["workload"]["path"] == str(tmp_path / "t.csv")
    assert replace(point).key == point.key
