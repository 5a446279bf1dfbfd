"""Records survive on disk; batches lose or repeat nothing, and grow to a second's work."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.sweep import Record, Store
from busdoor.sweep.batches import Batches
from busdoor.sweep.store import claim


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "points")


def test_a_record_comes_back_as_it_was(store):
    record = Record(
        "ab", {"a_ms": [1.5, math.inf], "b": [0.1 + 0.2, 3.0]}, duration_s=0.25, worker="host:1"
    )
    store.write(record)
    assert store.read("ab") == record


def test_a_failure_comes_back_with_its_sentence_and_traceback(store):
    store.write(Record("ab", error="it does not fit", traceback="Traceback ..."))
    assert (store.read("ab").error, store.read("ab").traceback) == (
        "it does not fit",
        "Traceback ...",
    )


def test_a_record_is_a_table_for_pandas(store):
    store.write(Record("ab", {"a_ms": [1.5, 2.5]}))
    assert pd.read_parquet(store.path("ab")).to_dict("list") == {
        "metric": ["a_ms", "a_ms"], "replication": [0, 1], "value": [1.5, 2.5],
    }  # fmt: skip


def test_what_cannot_be_read_does_not_exist(store):
    store.path("torn").write_bytes(b"PAR1 and no more")
    pd.DataFrame({"metric": ["a"]}).to_parquet(store.path("alien"))
    store.write(Record("whole", {"a": [1.0]}))
    assert list(store.read_all(["torn", "alien", "whole", "absent"])) == ["whole"]


def test_nothing_has_its_name_before_it_is_complete(store, monkeypatch):
    import pyarrow.parquet as pq

    def killed(table, path):
        path.write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write(Record("ab", {"a": [1.0]}))
    assert list(store.folder.glob("*.parquet")) == []


def tasks(count):
    return [(str(number), {}) for number in range(count)]


@pytest.mark.parametrize(("duration_s", "size"), [(0.01, 100), (0.3, 4), (1.0, 1), (30.0, 1)])
def test_batches_take_a_second_or_more_once_a_point_has_told_how_long_it_takes(duration_s, size):
    batches = Batches(tasks(1000))
    handed_out = iter(batches)
    first = next(handed_out)
    assert len(first) == 1
    batches.done([Record(first[0][0], duration_s=duration_s)])
    assert len(next(handed_out)) == size


def test_after_tasks_of_no_time_at_all_everything_is_handed_out():
    batches = Batches(tasks(30))
    handed_out = iter(batches)
    first = next(handed_out)
    batches.done([Record(key, duration_s=5e-324) for key, _ in first])
    assert len(next(handed_out)) == 30 - len(first)


@given(st.integers(0, 40), st.data())
def test_whatever_dies_every_task_comes_back_once(count, data):
    batches, done = Batches(tasks(count)), []
    while len(batches):
        out = []
        for batch in batches:
            out.append(batch)
            if data.draw(st.booleans()):
                finished = out.pop(data.draw(st.integers(0, len(out) - 1)))
                batches.done(
                    [Record(key, duration_s=data.draw(st.floats(0, 2))) for key, _ in finished]
                )
                done += finished
            if data.draw(st.integers(0, 9)) == 0:
                break  # a worker dies, and with it this round
        done += batches.take_out()
    assert sorted(done) == sorted(tasks(count))


def test_a_sweep_goes_on_in_its_own_folder_and_in_no_other(tmp_path):
    claim(tmp_path / "new", ["a"])
    Store(tmp_path / "points").write(Record("a"))
    claim(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match="holds points; one folder holds one study"):
        claim(tmp_path, ["c"])
    (tmp_path / "sweep.csv").touch()
    claim(tmp_path, ["c"], overwrite=True)
    assert not tmp_path.exists()
    other = tmp_path / "other"
    other.mkdir(parents=True)
    (other / "comparison.json").touch()
    with pytest.raises(ValueError, match=r"holds comparison\.json"):
        claim(other, ["a"])
