"""Progress bars: on a terminal as ever, in a log a line now and then."""

import io
import sys
import time

import pytest

from drive_unet import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    def replaced(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return replaced


def test_a_log_is_not_filled(stderr, monkeypatch):
    log = stderr(io.StringIO())
    assert list(progress.bar(range(1000), desc="predicting", unit="image")) == list(range(1000))
    assert log.getvalue() == ""  # over long before the first line was due

    monkeypatch.setattr(progress, "SECONDS", 0.0)
    counted = progress.bar(total=2, desc="training", unit="step")
    for _ in range(2):
        counted.set_postfix(loss="0.5", refresh=False)
        counted.update()
    counted.close()
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert lines[0].startswith("training: 0 of 2 steps, ")
    assert lines[-1].startswith("training: 2 of 2 steps, ") and lines[-1].endswith(", loss=0.5")


def test_a_terminal_has_its_bar_and_what_is_not_shown_is_silent(stderr):
    terminal = stderr(Terminal())
    assert sum(progress.bar([1, 2], desc="adding", unit="number")) == 3
    assert "\r" in terminal.getvalue() and "2/2" in terminal.getvalue()
    for stream in (Terminal(), io.StringIO()):
        stderr(stream)
        assert sum(progress.bar([1, 2], shown=False)) == 3
        assert stream.getvalue() == ""


def test_a_bar_that_waits_can_be_told_to_wait_longer(stderr, monkeypatch):
    for seconds, begun in (("0", True), ("600", False)):
        monkeypatch.setenv(progress.PATIENCE, seconds)
        terminal = stderr(Terminal())
        waiting = progress.bar(range(3), desc="decoding", unit="image", delay=0.01, mininterval=0)
        for _ in waiting:
            time.sleep(0.02)
        assert ("decoding" in terminal.getvalue()) is begun
