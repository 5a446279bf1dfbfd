"""The recording scheduler, on a stand-in for vLLM's, and the result that is made of its log."""

import json
from types import SimpleNamespace

import pytest

from busdoor.observe.step_log import engine_result, read_step_log, request_name
from busdoor.observe.vllm_recorder import VARIABLE, StepLog, recording


class Scheduler:
    """What the recorder needs of vLLM's scheduler: decides what a test tells it."""

    def __init__(self, **_):
        self.scheduler_config = SimpleNamespace(
            max_num_seqs=4,
            max_num_batched_tokens=64,
            enable_chunked_prefill=True,
            async_scheduling=False,
            policy="fcfs",
        )
        self.cache_config = SimpleNamespace(block_size=16, enable_prefix_caching=True)
        self.kv_cache_config = SimpleNamespace(num_blocks=101)
        self.kv_cache_manager = SimpleNamespace(usage=0.25)
        self.max_model_len = 512
        self.running, self.waiting = [], []
        self.decisions = []

    def add_request(self, request):
        self.waiting.append(request)

    def schedule(self):
        tokens, new, evicted = self.decisions.pop(0)
        for request in evicted:
            self._preempt_request(request, 0.0)
        entering = [SimpleNamespace(req_id=name, num_computed_tokens=n) for name, n in new.items()]
        return SimpleNamespace(
            num_scheduled_tokens=tokens,
            scheduled_new_reqs=entering,
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=[], num_computed_tokens=[], resumed_req_ids=set()
            ),
        )

    def _preempt_request(self, request, timestamp):
        self.running = [one for one in self.running if one is not request]

    def update_from_output(self, output, done):
        answers = [
            SimpleNamespace(request_id=name, finish_reason="length" if name in done else None)
            for name in output.num_scheduled_tokens
        ]
        return {0: SimpleNamespace(outputs=answers)}

    def shutdown(self):
        self.closed = True


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "steps.jsonl"))
    return recording(Scheduler)()


def names(*rows):
    return [f"cmpl-{request_name('ab12', row)}-0-0123abcd" for row in rows]


def serve(scheduler, decisions, num_prompt_tokens):
    """Run iterations: (tokens by request, cached tokens of those that enter, preempted, done)."""
    for name, tokens in num_prompt_tokens.items():
        scheduler.add_request(SimpleNamespace(request_id=name, num_prompt_tokens=tokens))
    for tokens, new, evicted, done in decisions:
        scheduler.decisions.append(
            (tokens, new, [SimpleNamespace(request_id=one) for one in evicted])
        )
        scheduler.update_from_output(scheduler.schedule(), done)
    scheduler.shutdown()
    return scheduler._log.path


class TestTheLog:
    def test_it_is_vllms_decision_that_is_returned(self, scheduler):
        (one,) = names(0)
        scheduler.decisions.append(({one: 5}, {one: 0}, []))
        assert scheduler.schedule().num_scheduled_tokens == {one: 5}

    def test_batches_times_and_lengths_come_back(self, scheduler):
        one, two = names(0, 1)
        decisions = [
            ({one: 20}, {one: 0}, [], []),
            ({one: 1, two: 14}, {two: 16}, [], []),
            ({one: 1, two: 1}, {}, [], [one, two]),
        ]
        path = serve(scheduler, decisions, {one: 20, two: 30})
        result = engine_result(read_step_log(path), 0.0, "ab12", "mine")
        assert result.requests["output_tokens"].tolist() == [3, 2]
        assert result.requests["cached_tokens"].tolist() == [0, 16]
        assert result.iterations["num_prefill_tokens"].tolist() == [20, 14, 0]
        assert result.iterations["num_decode_tokens"].tolist() == [0, 1, 2]
        assert result.requests["status"].tolist() == ["finished"] * 2
        assert result.meta["num_blocks"] == 100
        assert result.meta["client_rows"] == [0, 1]

    def test_a_request_has_waited_since_the_front_end_took_it(self, scheduler):
        from time import monotonic, time

        (one,) = names(0)
        scheduler.add_request(
            SimpleNamespace(request_id=one, num_prompt_tokens=5, arrival_time=time() - 2.0)
        )
        scheduler.shutdown()
        (request,) = read_step_log(scheduler._log.path).requests.values()
        assert request.taken_s == pytest.approx(monotonic() - 2.0, abs=0.5)
        assert request.arrival_s == pytest.approx(monotonic(), abs=0.5)

    def test_a_preemption_is_recorded(self, scheduler):
        one, two = names(0, 1)
        decisions = [
            ({one: 10, two: 10}, {one: 0, two: 0}, [], []),
            ({one: 1}, {}, [two], [one]),
            ({two: 11}, {two: 0}, [], [two]),
        ]
        path = serve(scheduler, decisions, {one: 10, two: 10})
        result = engine_result(read_step_log(path), 0.0, "ab12", "mine")
        assert result.requests["num_preemptions"].tolist() == [0, 1]
        assert result.requests["output_tokens"].tolist() == [2, 2]

    def test_a_request_arrives_before_the_iteration_that_could_take_it(self, scheduler):
        """The engine looks for requests after an iteration, in the host's gap before the next."""
        one, two = names(0, 1)
        scheduler.add_request(SimpleNamespace(request_id=one, num_prompt_tokens=4))
        scheduler.decisions = [({one: 4}, {one: 0}, []), ({one: 1, two: 4}, {two: 0}, [])]
        scheduler.update_from_output(scheduler.schedule(), [])
        scheduler.add_request(SimpleNamespace(request_id=two, num_prompt_tokens=4))
        scheduler.update_from_output(scheduler.schedule(), [one, two])
        scheduler.shutdown()
        result = engine_result(read_step_log(scheduler._log.path), 0.0, "ab12", "mine")
        assert result.requests["arrival_s"][1] == result.iterations["start_s"][1]

    def test_requests_of_others_are_named(self, scheduler):
        (one,) = names(0)
        path = serve(
            scheduler, [({one: 5, "cmpl-x": 3}, {one: 0}, [], [one])], {one: 5, "cmpl-x": 3}
        )
        with pytest.raises(
            ValueError, match="1 requests of other clients ran beside those of mine"
        ):
            engine_result(read_step_log(path), 0.0, "ab12", "mine")

    def test_another_run_is_not_in_it(self, scheduler):
        path = serve(scheduler, [], {})
        with pytest.raises(ValueError, match="no request of mine"):
            engine_result(read_step_log(path), 0.0, "ab12", "mine")


class TestTheFile:
    def test_a_line_that_a_kill_cut_off_is_left_out(self, tmp_path):
        path = tmp_path / "steps.jsonl"
        path.write_text(
            '{"config": {"max_num_seqs": 1}}\n{"add": ["a", 1.0, 5, 1.0]}\n{"step": [0, 1.', "utf-8"
        )
        log = read_step_log(path)
        assert list(log.requests) == ["a"]
        assert log.iterations == []

    def test_another_file_is_refused(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text('{"arrival_s": 0}\n', "utf-8")
        with pytest.raises(ValueError, match=r"x\.jsonl is no log of busdoor's recorder"):
            read_step_log(path)

    def test_an_earlier_log_is_moved_aside(self, tmp_path):
        for text in ("first", "second"):
            log = StepLog(tmp_path / "steps.jsonl")
            log.write({"config": text})
            log.close()
        assert json.loads((tmp_path / "steps.jsonl").read_text()) == {"config": "second"}
        assert json.loads((tmp_path / "steps.jsonl.1").read_text()) == {"config": "first"}

    def test_lines_are_on_the_disk_within_a_second(self, tmp_path):
        from time import sleep

        log = StepLog(tmp_path / "steps.jsonl")
        log.write({"config": 1})
        sleep(1.0)
        assert (tmp_path / "steps.jsonl").read_text() == '{"config":1}\n'
        log.close()
