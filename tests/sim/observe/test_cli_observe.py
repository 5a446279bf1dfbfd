"""`busdoor observe` and `busdoor serve`, as they are typed."""

import json
import signal
import subprocess
import sys

import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from busdoor.cli import main
from busdoor.observe.stand_in import stand_in
from busdoor.results.result import Result

TRACE = "arrival_s,input_tokens,output_tokens\n0,20,3\n0.02,30,2\n0.05,9,4\n"


@pytest.fixture
def url(policy, step_time):
    with stand_in(policy, step_time) as address:
        yield address


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(TRACE, "utf-8")
    return path


def test_a_run_is_a_result(url, trace, tmp_path, capsys):
    out = tmp_path / "seen"
    assert main(["observe", url, "--workload", str(trace), "--out", str(out)]) == 0
    result = Result.load(out)
    assert result.requests["output_tokens"].tolist() == [3, 2, 4]
    assert result.meta["complete"]
    assert len((out / "chunks.csv").read_text().splitlines()) == 1 + 9
    assert "requests answered" in capsys.readouterr().out


def test_every_rate_has_a_folder(url, trace, tmp_path):
    out = tmp_path / "seen"
    arguments = ["--workload", str(trace), "--rate", "20", "--rate", "40", "--out", str(out)]
    assert main(["observe", url, *arguments]) == 0
    spans = [Result.load(out / name).requests["arrival_s"].max() for name in ("rate-20", "rate-40")]
    assert spans[0] > spans[1]
    assert json.loads((out / "observe.json").read_text()) == {"complete": True, "runs": 2}
    assert main(["observe", url, *arguments, "--overwrite"]) == 0


def test_json_is_one_line(url, trace, tmp_path, capsys):
    assert (
        main(["observe", url, "--workload", str(trace), "--out", str(tmp_path / "a"), "--json"])
        == 0
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)[0]["completed"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://127.0.0.1:9"], "nothing answers at http://127.0.0.1:9/v1/models"),
        (["URL", "--model", "other"], "serves simulated; not other"),
        (["URL", "--step-log", "none.jsonl"], "none.jsonl"),
        (["URL", "--concurrency", "0"], "concurrency"),
    ],
)
def test_a_mistake_is_one_sentence(url, trace, tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    own = [url if one == "URL" else one for one in arguments]
    assert main(["observe", *own, "--workload", str(trace)]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_serve_serves_until_it_is_interrupted(trace, tmp_path):
    command = [
        sys.executable,
        "-m",
        "busdoor",
        "serve",
        "--port",
        "0",
        "--policy",
        "vllm,max_num_seqs=8",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert (
            main(["observe", url, "--workload", str(trace), "--out", str(tmp_path / "seen")]) == 0
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 130
    assert Result.load(tmp_path / "seen").meta["served_model"] == "llama-3.1-8b"


class TestTwinOfAServer:
    def test_it_prints_predictions_beside_measurements(self, url, trace, tmp_path, capsys):
        out = tmp_path / "twin"
        flags = ["--rate", "3", "--rate", "9", "--predict", "6", "--num-requests", "60"]
        flags += ["--static", "8"]
        policy = "vllm,max_num_seqs=8,max_num_batched_tokens=256"
        lengths = tmp_path / "lengths.csv"
        rows = [f"{0.1 * i},{10 + 37 * i % 230},{2 + 11 * i % 37}" for i in range(60)]
        lengths.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
        arguments = ["--workload", str(lengths), "--policy", policy, "--out", str(out), *flags]
        # A busy machine makes the fit doubtful.
        assert main(["twin", "--url", url, *arguments, "--force", "--slo", "e2e_p99=20s"]) == 0
        printed, page = capsys.readouterr().out, (out / "report.html").read_text("utf-8")
        assert "rate-6, ρ" in printed and "Errors by load" in page
        for text in (" ".join(printed.split()), page):
            assert "E2E p99 ≤ 20 s, vllm: measure next" in text and "narrows from ±" in text
        assert json.loads((out / "twin.json").read_text())["complete"]
        assert {path.name for path in (out / "runs").iterdir()} == {
            *("rate-3", "rate-6", "rate-9", "burst", "burst-static-8")
        }

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (
                ["--url", "http://127.0.0.1:9"],
                "twin --url needs --rate, to calibrate on, and --predict",
            ),
            (["--rate", "2"], "--rate applies only to --url"),
            (
                ["--url", "http://127.0.0.1:9", "--rate", "2", "--predict", "2"],
                "have a rate in common",
            ),
        ],
    )
    def test_a_mistake_is_one_sentence(self, capsys, tmp_path, monkeypatch, arguments, says):
        monkeypatch.chdir(tmp_path)
        assert main(["twin", *arguments]) == 2
        assert says in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_run_whose_client_lagged_is_not_calibrated_on(url, tmp_path, capsys):
    lengths = tmp_path / "lengths.csv"
    rows = [f"{0.05 * i},{10 + 37 * i % 230},{2 + 11 * i % 37}" for i in range(40)]
    lengths.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
    seen = tmp_path / "seen"
    assert main(["observe", url, "--workload", str(lengths), "--out", str(seen)]) == 0
    meta = json.loads((seen / "meta.json").read_text())
    meta["client"]["doubts"] = ["half of the requests were sent late"]
    (seen / "meta.json").write_text(json.dumps(meta))
    policy = ["--policy", "vllm,max_num_seqs=8,max_num_batched_tokens=256"]
    out = tmp_path / "mine.toml"
    arguments = [
        "calibrate",
        str(seen),
        *policy,
        "--out",
        str(out),
    ]  # it sees that there are requests alone
    assert main(arguments) == 2
    assert "half of the requests were sent late" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments, "--force"]) == 0
    assert out.exists()
