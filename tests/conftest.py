"""What several test files share: an official copy of DRIVE, and one of it to spoil."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import write_drive


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> Path:
    """Today's official download, unpacked; tests read it only."""
    return write_drive(tmp_path_factory.mktemp("official") / "DRIVE")


@pytest.fixture
def root(official, tmp_path) -> Path:
    """A copy of the official download to spoil."""
    return Path(shutil.copytree(official, tmp_path / "DRIVE"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, as in a terminal; what a shell starts in its background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
