"""Fetching: verified, resumed, cached; against a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from busdoor_workloads import download
from busdoor_workloads import fetch as fetching
from busdoor_workloads.fetch import PUBLIC_TRACES, cache_folder, cached, fetch
from busdoor_workloads.formats import read_trace

DATA = b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"".join(
    b"2023-11-16 18:%02d:%02d.0000000,374,44\n" % divmod(i, 60) for i in range(3600)
)
NAME = "azure-2023-conv"


class Publisher:
    """A web server with one file; it can ignore ranges, break off, or say what was asked."""

    def __init__(self) -> None:
        self.data, self.knows_ranges, self.breaks_after = DATA, True, None
        self.tells_length = True
        self.asked: list[str | None] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.url = f"http://127.0.0.1:{self.server.server_port}/trace.csv"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def __init__(self, publisher: Publisher, *args: object) -> None:
        self.publisher = publisher
        super().__init__(*args)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        publisher, asked = self.publisher, self.headers.get("Range")
        publisher.asked.append(asked)
        if self.path == "/missing":
            return self.send_error(404)
        first = (
            int(asked.removeprefix("bytes=").rstrip("-")) if asked and publisher.knows_ranges else 0
        )
        if first >= len(publisher.data):
            return self.send_error(416)
        body = publisher.data[first:]
        self.send_response(206 if first else 200)
        if publisher.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: publisher.breaks_after])
        return None


@pytest.fixture
def publisher(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publisher = Publisher()
    published = replace(
        PUBLIC_TRACES[NAME], url=publisher.url, sha256=hashlib.sha256(DATA).hexdigest()
    )
    monkeypatch.setattr(fetching, "PUBLIC_TRACES", {**PUBLIC_TRACES, NAME: published})
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()


def part_of(folder: Path) -> Path:
    return folder / f"{NAME}.csv.part"


def test_a_fetched_file_is_verified_kept_and_readable(publisher, tmp_path):
    seen = []
    path = fetch(
        NAME, tmp_path / "new", progress=lambda at_hand, in_all: seen.append((at_hand, in_all))
    )
    assert path.read_bytes() == DATA
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert not part_of(tmp_path / "new").exists()
    assert len(read_trace(path)) == 3600


def test_the_second_time_it_comes_from_the_cache(publisher, tmp_path):
    assert fetch(NAME, tmp_path) == fetch(NAME, tmp_path)
    assert publisher.asked == [None]


def test_a_damaged_file_in_the_cache_is_fetched_anew(publisher, tmp_path):
    path = fetch(NAME, tmp_path)
    path.write_bytes(DATA[:-1])
    assert fetch(NAME, tmp_path).read_bytes() == DATA


def test_an_interrupted_download_goes_on_where_it_stopped(publisher, tmp_path):
    part_of(tmp_path).write_bytes(DATA[:1000])
    assert fetch(NAME, tmp_path).read_bytes() == DATA
    assert publisher.asked == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(publisher, tmp_path):
    publisher.knows_ranges = False
    part_of(tmp_path).write_bytes(DATA[:1000])
    assert fetch(NAME, tmp_path).read_bytes() == DATA


def test_a_complete_part_needs_nothing_more(publisher, tmp_path):
    part_of(tmp_path).write_bytes(DATA)
    assert fetch(NAME, tmp_path).read_bytes() == DATA
    assert publisher.asked == [f"bytes={len(DATA)}-"]


def test_a_broken_line_keeps_what_came(publisher, tmp_path):
    publisher.breaks_after = 5000
    with pytest.raises(OSError, match="go on from what has come"):
        fetch(NAME, tmp_path)
    assert part_of(tmp_path).read_bytes() == DATA[:5000]
    publisher.breaks_after = None
    assert fetch(NAME, tmp_path).read_bytes() == DATA
    assert publisher.asked == [None, "bytes=5000-"]


def test_another_file_under_that_name_is_refused_and_not_kept(publisher, tmp_path):
    publisher.data = DATA.replace(b"374", b"375")
    with pytest.raises(
        ValueError, match=f"is not the published {NAME}: its sha256 is .* and must be"
    ):
        fetch(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_is_not_kept_either(publisher, tmp_path):
    part_of(tmp_path).write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="is not the published"):
        fetch(NAME, tmp_path)
    assert fetch(NAME, tmp_path).read_bytes() == DATA


def test_a_mirror_must_give_the_same_bytes(publisher, tmp_path):
    assert fetch(NAME, tmp_path, url=publisher.url + "?mirror").read_bytes() == DATA


def test_what_cannot_be_fetched_is_one_sentence(publisher, tmp_path):
    with pytest.raises(OSError, match="/missing answers 404"):
        fetch(NAME, tmp_path, url=publisher.url.replace("trace.csv", "missing"))
    with pytest.raises(OSError, match="cannot be fetched"):
        fetch(NAME, tmp_path, url="http://127.0.0.1:9/trace.csv")
    with pytest.raises(ValueError, match="did you mean 'azure-2023-conv'"):
        fetch("azure-2023-con", tmp_path)


def test_two_at_once_do_not_collide(publisher, tmp_path):
    threads = [threading.Thread(target=fetch, args=(NAME, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.csv"]
    assert fetch(NAME, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("tells_length", [True, False])
def test_more_than_any_trace_is_not_received(publisher, tmp_path, monkeypatch, tells_length):
    monkeypatch.setattr(download, "_MOST_BYTES", 1000)
    publisher.tells_length = tells_length
    with pytest.raises(
        ValueError, match=r"the server sends .* bytes or more, but no public trace here has 1,000"
    ):
        fetch(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_not_used(publisher, tmp_path):
    path = fetch(NAME, tmp_path)
    assert cached(NAME, tmp_path) == path
    path.write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match="is not the published"):
        cached(NAME, tmp_path)


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BUSDOOR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BUSDOOR_CACHE")
    assert "busdoor" in str(cache_folder())


def test_every_public_trace_is_pinned_and_attributed():
    for name, trace in PUBLIC_TRACES.items():
        assert name == trace.name
        assert len(trace.sha256) == 64
        assert trace.url.startswith("https://")
        assert trace.licence
        assert trace.attribution
    assert len({trace.filename for trace in PUBLIC_TRACES.values()}) == len(PUBLIC_TRACES)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("azure-2023-conv", "azure_llm_2023_conv.csv.gz"),
        ("azure-2023-code", "azure_llm_2023_code.csv.gz"),
        ("mooncake-conversation", "mooncake_fast25_conversation.jsonl.gz"),
        ("mooncake-synthetic", "mooncake_fast25_synthetic.jsonl.gz"),
        ("vidur-arxiv", "vidur_arxiv_summarization_lengths.csv.gz"),
    ],
)
def test_the_hash_is_that_of_the_published_file(name, saved):
    import gzip

    path = Path(__file__).resolve().parents[2] / "../shared/traces" / saved
    if not path.exists():
        pytest.skip("the public traces are not at hand")
    data = gzip.decompress(path.read_bytes())
    assert hashlib.sha256(data).hexdigest() == PUBLIC_TRACES[name].sha256
    assert len(read_trace(path)) == PUBLIC_TRACES[name].num_requests
