"""Thousands of damaged and strange files: each is read, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from busdoor_workloads import Trace
from busdoor_workloads.describe import describe
from busdoor_workloads.formats import read_trace

pytestmark = pytest.mark.slow
FUZZ = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KEYS = """arrival_s input_tokens output_tokens max_output_tokens priority session_id turn think_time_s timeout_s
hash_ids block_size concurrency timestamp input_length output_length chat_id parent_chat_id TIMESTAMP ContextTokens
GeneratedTokens Timestamp Model arrived_at num_prefill_tokens num_decode_tokens arrival_time_ns input_toks output_toks
sub_requests arrival_timestamp prompt_size token_size input_lens output_lens start_times request_rate x"""
NAMES = st.sampled_from(KEYS.split()) | st.text(max_size=5)
SMALL = st.integers(0, 9)
NUMBERS = SMALL | st.integers() | st.floats() | st.integers(2**62, 2**66)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.dates().map(str)
VALUES = (
    SMALL
    | SCALARS
    | st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=6,
    )
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=8)
OWN = {"arrival_s": 0, "input_tokens": 5, "output_tokens": 2}
MOONCAKE = {"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [1]}
NEARLY = st.builds(
    lambda good, name, value: good | {name: value}, st.sampled_from([OWN, MOONCAKE]), NAMES, VALUES
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "skip_bad": st.booleans(),
        "time_unit": st.sampled_from(["s", "ms", "us", "ns", "datetime"]),
        "block_size": st.sampled_from([1, 16, 512]),
        "max_total_tokens": st.integers(2, 100),
        "columns": st.just({"input_tokens": "x", "output_tokens": "input_tokens"}),
    },
)


def holds(path, options) -> None:
    """The file is refused in a short printable sentence, or gives a trace that can be described."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trace = read_trace(path, **options)
    except ValueError as error:
        assert 0 < len(str(error)) < 3000
        return
    assert isinstance(trace, Trace)
    assert np.isfinite(describe(trace)["span_s"])


@FUZZ
@given(
    records=st.lists(RECORDS | NEARLY | RECORDS.map(lambda r: OWN | r), max_size=4),
    options=OPTIONS,
    array=st.booleans(),
)
def test_json(tmp_path, records, options, array):
    path = tmp_path / "t.jsonl"
    text = (
        json.dumps(records) if array else "".join(json.dumps(record) + "\n" for record in records)
    )
    path.write_text(text)
    holds(path, options)


@FUZZ
@given(
    header=st.lists(NAMES, min_size=1, max_size=6),
    rows=st.lists(st.lists(SCALARS.map(str), max_size=7), max_size=5),
    separator=st.sampled_from([",", ";", "\t"]),
    options=OPTIONS,
    own=st.booleans(),
)
def test_csv(tmp_path, header, rows, separator, options, own):
    path = tmp_path / "t.csv"
    header = [*OWN, *header] if own else header
    rows = [["0", "5", "2", *row] for row in rows] if own else rows
    text = "\n".join(separator.join(row) for row in [header, *rows])
    path.write_text(
        text, encoding="utf-8", errors="surrogatepass"
    ) if text.isascii() else path.write_bytes(text.encode("utf-8", "replace"))
    holds(path, options)


@FUZZ
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from(
        [b"", b"\x1f\x8b", b"PAR1", b"BZh9", b"\xfd7zXZ\x00", b"(\xb5/\xfd", b"{", b"["]
    ),
)
@example(data=b"", start=b"")
def test_bytes(tmp_path, data, start):
    path = tmp_path / "t"
    path.write_bytes(start + data)
    holds(path, {})


@FUZZ
@given(place=st.integers(0, 400), damage=st.binary(min_size=1, max_size=4), packed=st.booleans())
def test_a_good_file_damaged(tmp_path, place, damage, packed):
    good = (
        "".join(
            json.dumps(OWN | {"session_id": i, "turn": 0, "arrival_s": i}) + "\n" for i in range(4)
        )
    ).encode()
    good = gzip.compress(good) if packed else good
    place %= len(good)
    path = tmp_path / "t.jsonl"
    path.write_bytes(good[:place] + damage + good[place + len(damage) :])
    holds(path, {})


@FUZZ
@given(records=st.lists(RECORDS.map(lambda r: OWN | r), min_size=1, max_size=4))
def test_frames(records):
    try:
        trace = Trace.from_frame(pd.DataFrame(records))
    except ValueError as error:
        assert 0 < len(str(error)) < 3000
        return
    assert len(trace) == len(records)
