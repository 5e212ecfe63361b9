"""Ctrl-C waits for the end of a training step, so that what is kept is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

Batch = TypeVar("Batch")


class WholeSteps:
    """While it is entered, an interruption in a step is raised when the step is done; a second one at once.

    Outside the main thread, and where the signal is handled by others or ignored, all stays as it is.

    Attributes:
        broken: whether a step was begun and is not done.
    """

    def __init__(self) -> None:
        self.broken = self._asked = False

    def __enter__(self) -> WholeSteps:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._handles = usual and threading.current_thread() is threading.main_thread()
        if self._handles:
            signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._asked and kind is None:  # in a step after which the training ended by itself
            raise KeyboardInterrupt

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self.broken:
            raise KeyboardInterrupt
        self._asked = True

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; the loop over them takes a step with each.

        Raises:
            KeyboardInterrupt: between two steps.
        """
        for batch in batches:
            self.broken = True
            yield batch
            self.broken = False
            if self._asked:
                raise KeyboardInterrupt
