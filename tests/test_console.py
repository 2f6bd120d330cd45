"""What a stage says where there is no terminal: little, in lines, with a rate that means something."""

import re

import pytest

from sg import console
from sg.console import Progress, track


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_short_work_says_nothing_in_a_pipe(clock, capsys):
    assert list(track(range(3), "reading", 3, "scans")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_long_work_says_a_line_now_and_then_with_rate_and_remaining_time(clock, capsys):
    with Progress("reading", 100, "scans") as progress:
        for _ in range(10):
            clock.now += 5
            progress.step()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["reading: 4/100, 5.0 s/scan, 480 s left", "reading: 8/100, 5.0 s/scan, 460 s left"]


def test_what_an_earlier_run_did_does_not_count_as_speed(clock, capsys):
    with Progress("training", 12, "epochs", before=9) as progress:
        clock.now += 40
        progress.step(note="loss 0.1")
    assert capsys.readouterr().err == "training: 10/12, 40.0 s/epoch, 80 s left loss 0.1\n"


def test_quick_steps_are_told_by_their_rate(clock, capsys):
    with Progress("cutting", 1000, "patches") as progress:
        clock.now += 25
        progress.step(500)
    assert re.fullmatch(r"cutting: 500/1000, 20\.0 patches/s, 25 s left\n", capsys.readouterr().err)


def test_brackets_in_a_message_are_not_taken_for_markup(capsys):
    console.complain("params.yaml: noise_hu must be [least, largest], got [30.0, 10.0]")
    assert "[least, largest], got [30.0, 10.0]" in capsys.readouterr().err
