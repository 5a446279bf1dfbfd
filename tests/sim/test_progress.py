"""Progress on stderr: a bar in a terminal, lines elsewhere, and nothing on stdout."""

import io
import re
import sys
import time

import pytest

from busdoor.cli import progress
from busdoor.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stderr, work):
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar("drawing requests") as report:
        work(report)
    return stderr.getvalue()


def until(condition, limit_s=20.0):
    end_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.01)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress._Lines, "wait_s", 0.01)
    monkeypatch.setattr(progress._Bar, "wait_s", 0.01)


def test_short_work_prints_nothing(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), lambda report: report(0.5, "half")) == ""
    assert shown(monkeypatch, Terminal(), lambda report: report(0.5, "half")) == ""


def test_a_pipe_gets_lines_also_while_nothing_is_reported(monkeypatch, impatient, capsys):
    pipe = io.StringIO()

    def work(report):
        until(lambda: "drawing requests" in pipe.getvalue())
        report(0.5, "vllm: 1 of 2 requests")
        until(lambda: "50 %" in pipe.getvalue())

    lines = shown(monkeypatch, pipe, work).splitlines()
    assert lines[0] == "busdoor: running for 0:00; drawing requests"
    assert re.fullmatch(r"busdoor: 50 % done after 0:\d\d; vllm: 1 of 2 requests", lines[-1])
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar_which_goes_away(monkeypatch, impatient):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    drawn = shown(
        monkeypatch,
        terminal,
        lambda report: until(lambda: "drawing requests" in terminal.getvalue()),
    )
    assert "drawing requests" in drawn and drawn.endswith("\x1b[2K")


def test_no_line_comes_after_the_work(monkeypatch, impatient):
    pipe = io.StringIO()
    before = shown(monkeypatch, pipe, lambda report: until(lambda: pipe.getvalue()))
    time.sleep(0.05)
    assert pipe.getvalue() == before


def test_an_error_goes_through(monkeypatch):
    with pytest.raises(ValueError, match="as it was"), progress_bar():
        raise ValueError("as it was")
