"""Others' configurations: mistakes name file and line, and nothing is dropped."""

from itertools import islice, product
from pathlib import Path

import pytest

from busdoor.cli import main
from busdoor.config import Config, load_config, merge
from busdoor.config.server_tables import GPUTable, KVTable
from busdoor.config.tables import PLAIN_KEYS, TABLES
from busdoor.config.workload import WorkloadTable
from busdoor.core.names import unknown
from busdoor.core.study_paths import folder_names
from busdoor.core.toml import MAX_BYTES, parse_toml, parse_value
from busdoor.policies import POLICIES
from busdoor.step_time import STEP_TIMES
from busdoor.sweep import plan
from busdoor_workloads import Workload

CASES = Path(__file__).parents[1] / "cases"
TRACE = str(CASES / "08-200-requests.csv")


def said(capsys, *arguments):
    """Run a command that must be refused, and return its sentence."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix("busdoor: ").strip()


@pytest.mark.parametrize(
    ("file", "sentence"),
    {
        "07_typo_workload_ignored/typo": "line 2: [workload] request_ratee: unknown; did you mean "
        "request_rate?",
        "11_toml/gpu_float": "line 13: [gpu] name: 1e-320 is not a GPU of the catalogue; it must "
        "be a name (",
        "11_toml/max_model_len_1": "line 11: [kv] max_model_len = 1: input should be greater than "
        "or equal to 2",
        "11_toml/process_list": "line 5: [workload] input_tokens: give mu and sigma, or mean and "
        "median",
        "05_mathtext_label/nul": "line 11: [policy] label: 'a\\x00b' has a character that cannot "
        "be shown; use letters",
    }.items(),
)
def test_a_file_of_the_robustness_cases_is_refused_with_file_and_line(file, sentence, capsys):
    path = CASES / "robustness" / f"{file}.toml"
    command = ["compare"] if "label" in file else ["simulate", "azure-conv", "--num-requests", 5]
    assert said(capsys, *command, "--config", path).startswith(f"{path}, {sentence}")


@pytest.mark.parametrize(
    ("text", "flags", "sentence"),
    [
        (
            '[step_time]\nname = "linear"\nbase_ss = 1',
            ["--step-time", "vllm-cpu"],
            "line 3: [step_time] base_ss: unk",
        ),
        (
            '[policy]\nname = "vllm"\nmax_num_seq = 1',
            ["--policy", "static"],
            "line 3: [policy] max_num_seq: unknown",
        ),
        (
            '[workload]\narrival = {process = ["a", 1]}',
            [],
            "line 2: [workload] arrival: arrivals {'process': ['a', 1]}",
        ),
        ("[workload]\nname = 3", [], "line 2: [workload] name = 3: input should be a valid string"),
        (
            "[kv]\nnum_blockss = 3",
            [],
            "line 2: [kv] num_blockss: unknown; did you mean num_blocks?",
        ),
        ("[gpu]\nbandwith = 3", ["--gpu", "h200"], "line 2: [gpu] bandwith: unknown; it may have "),
    ],
)
def test_a_mistake_in_what_a_flag_replaces_is_told_all_the_same(
    tmp_path, text, flags, sentence, capsys
):
    file = tmp_path / "a.toml"
    file.write_text(text)
    assert said(capsys, "simulate", "azure-conv", "--config", file, *flags).startswith(
        f"{file}, {sentence}"
    )


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    assert load_config(CASES / "14-bom.toml").policies[0].label == "vllm"
    file = tmp_path / "windows.toml"
    file.write_bytes(b'\xef\xbb\xbfseed = 3\r\n[policy]\r\nname = "vllm"\r\nmax_num_seqs = 0\r\n')
    with pytest.raises(ValueError, match="line 4: \\[policy\\] max_num_seqs = 0"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    {
        "a = " + "[" * 5000 + "]" * 5000: "a.toml: its tables and lists nest deeper than 32 levels",
        "a = " + "[" * 40 + "]" * 40: "a.toml: a: its tables and lists nest deeper than 32 levels",
        ".".join("a" * 40) + " = 1": "a.toml: a: its tables and lists nest deeper than 32 levels",
        "["
        + ".".join("a" * 5000)
        + "]": "a.toml: a: its tables and lists nest deeper than 32 levels",
        "seed = " + "1" * 10_000: "a.toml: an integer has more than 64 bits",
        "seed = 9223372036854775808": "a.toml: seed: an integer has more than 64 bits",
    }.items(),
)
def test_nesting_and_digits_are_bounded(text, sentence):
    with pytest.raises(ValueError) as error:
        parse_toml(text, "a.toml")
    assert str(error.value) == sentence


def test_a_flags_value_has_the_same_bounds():
    assert parse_value("[" * 9 + "]" * 9) == [[[[[[[[[]]]]]]]]]
    for text in ("[" * 5000 + "]" * 5000, "1" * 10_000):
        with pytest.raises(ValueError, match=r"nest deeper|more than 64 bits"):
            parse_value(text)


def test_a_file_that_is_no_configuration_by_its_size_is_not_read_whole(tmp_path):
    file = tmp_path / "big.toml"
    file.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(
        ValueError, match=r"big\.toml has more than 1,048,576 bytes, so it is no configuration"
    ):
        load_config(file)


def test_a_rate_of_a_flag_wins_over_a_files_time_scale(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = CASES / "15-time-scale.toml"
    assert main(["simulate", TRACE, "--config", str(config), "--rate", "4", "--out", "o"]) == 0
    merged = merge({"workload": {"request_rate": 4.0}}, {"workload": {"time_scale": 2.0}})
    assert merged == {"workload": {"time_scale": 2.0}}


def test_a_seed_of_a_flag_wins_over_the_workloads_own_and_a_gpu_loses_the_other_ones_price():
    merged = merge(
        {"workload": {"seed": 3}, "gpu": {"name": "h100", "price_per_hour": 2.5}}, {"seed": 5}
    )
    assert merged == {"workload": {}, "gpu": {"name": "h100", "price_per_hour": 2.5}, "seed": 5}
    assert merge(merged, {"gpu": {"name": "h200"}})["gpu"] == {"name": "h200"}


@pytest.mark.parametrize(
    ("table", "key"), [("kv", "block_size"), ("gpu", "tp"), ("workload", "num_requests")]
)
def test_a_boolean_is_no_number(table, key):
    with pytest.raises(
        ValueError, match=rf"\[{table}\] {key} = True: it must be a number, not a boolean"
    ):
        Config.from_table({table: {key: True}})
    with pytest.raises(
        ValueError, match="poisson request_rate = True: it must be a number, not a boolean"
    ):
        Config.from_table({"workload": {"arrival": {"process": "poisson", "request_rate": True}}})


LABELS = [
    "a b",
    "a-b",
    "A b",
    "..",
    "/abs",
    "../../x",
    "a/b",
    "...",
    "$\\frac$",
    "é",
    "static (batch_size 16)",
]


def test_every_label_has_a_folder_of_its_own_inside_the_results():
    names = folder_names(LABELS)
    assert len({name.casefold() for name in names.values()}) == len(LABELS)
    assert all(Path(name).name == name and name not in ("", ".", "..") for name in names.values())
    assert (names["a b"], names["a-b"], names[".."], names["static (batch_size 16)"]) == (
        "a-b",
        "a-b-2",
        "policy",
        "static-batch_size-16",
    )


@pytest.mark.parametrize(
    "label", ["\x1b[31m", "a\nb", "\u202eabc", "x" * 101, "=1+1", "@x", "-2", 3, True, ["a"]]
)
def test_a_label_that_cannot_be_shown_is_refused(label):
    with pytest.raises(ValueError, match=r"^\[policy\] label"):
        Config.from_table({"policy": {"name": "vllm", "label": label}})
    with pytest.raises(ValueError, match=r"^\[workload\] name"):
        Config.from_table({"workload": {"name": label, "input_tokens": 3, "output_tokens": 3}})


@pytest.mark.parametrize("name", ["command-r-plus", "jamba-1.5-mini", "dbrx", "falcon-180b"])
def test_a_model_that_is_not_near_any_other_brings_no_guess(name):
    with pytest.raises(ValueError) as error:
        Config.from_table({"gpu": {"model": name}})
    assert "did you mean" not in str(error.value) and "(known: codellama-34b, " in str(error.value)


def test_a_guess_is_made_only_where_a_name_is_near():
    assert "did you mean 'h100'" in str(unknown("a GPU", "h10", ["h100", "l40s"]))
    assert "did you mean" not in str(unknown("a GPU", "tpu-v5", ["rtx-4090", "l40s"]))


WEIRD: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    2**63 - 1,
    1e-320,
    1e308,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "os:system",
    "\0",
)
WEIRD += (
    [],
    [1],
    ["a", 1],
    {},
    {"a": 1},
    {"name": [1]},
    {"type": ["a"]},
    {"process": ["a"]},
    [{}],
    [None],
)
OF_LAWS = (
    "type",
    "process",
    "tokens",
    "mean",
    "p50",
    "components",
    "turns",
    "request_rate",
    "num_groups",
    "block_size",
)


def keys():
    """Every key of every table, as a path."""
    yield from ((name,) for name in (*TABLES, *PLAIN_KEYS))
    for table, fields in {"kv": KVTable, "gpu": GPUTable, "workload": WorkloadTable}.items():
        yield from ((table, key) for key in fields.__dataclass_fields__)
    yield from (("workload", key) for key in ("base", *Workload.__dataclass_fields__))
    laws = ("input_tokens", "arrival", "multi_turn", "shared_prefix", "lengths", "timeout_s")
    yield from (("workload", law, key) for law, key in product(laws, OF_LAWS))
    yield from (
        ("gpu", part, key)
        for part in ("name", "model")
        for key in ("name", "memory_gib", "hidden_size")
    )
    yield from (("slo", key) for key in ("ttft", "ttft_p99", "goodput", "preset"))
    yield from (("cluster", key) for key in ("replicas", "router", "link_bytes_per_s", "pool"))


def tables():
    """Every key with every strange value, as a table of a configuration."""
    for path, value in product(keys(), WEIRD):
        table = value
        for key in reversed(path):
            table = {key: table}
        yield {"policy": "vllm", **table}
    for kind, table in (("policy", POLICIES), ("step_time", STEP_TIMES)):
        for name, fields in table.items():
            for key, value in product((*fields.__dataclass_fields__, "label"), WEIRD):  # type: ignore[attr-defined]
                yield {kind: {"name": name, key: value}}


@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.slow)])
def test_a_value_of_the_wrong_kind_is_one_sentence_wherever_it_stands(every):
    for table in islice(tables(), 0, None, every):
        try:
            Config.from_table(table)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, table
        except Exception as error:
            raise AssertionError(f"{table}: {type(error).__name__}: {error}") from error


def test_two_policies_never_share_a_label():
    tables = [{"name": "vllm"}, {"name": "vllm"}, {"name": "static", "label": "vllm (1)"}]
    with pytest.raises(
        ValueError, match=r"^\[policy\] label = 'vllm \(1\)': 2 policies would have it"
    ):
        Config.from_table({"policy": tables})


def test_a_mistake_in_a_table_that_is_swept_is_told():
    with pytest.raises(
        ValueError, match=r"\[workload\] request_ratee: unknown; did you mean request_rate\?"
    ):
        plan(
            {
                "workload": {"request_ratee": 3.0},
                "sweep": {"workload.name": ["azure-conv", "azure-code"]},
            }
        )
