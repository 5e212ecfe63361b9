"""Progress bars, which do not fill a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import auto, std

SECONDS = 30.0  # between two lines in a log
PATIENCE = "DRIVE_UNET_BAR_DELAY"  # variable of the environment: seconds until a bar that waits may appear


def bar(items: Iterable | None = None, *, shown: bool = True, **settings: Any) -> std.tqdm:
    """A progress bar on a terminal and in a notebook; where stderr goes to a file, a line now and then.

    Args:
        items: to go through, as for ``tqdm``; None where the caller counts.
        shown: False shows nothing.
        settings: of ``tqdm``, such as ``desc``, ``unit`` and ``total``.
    """
    if "delay" in settings and PATIENCE in os.environ:  # a notebook's output must not depend on the machine
        settings["delay"] = float(os.environ[PATIENCE])
    in_notebook = auto.notebook_tqdm is not std.tqdm
    if not shown or in_notebook or sys.stderr.isatty():
        return auto.tqdm(items, disable=not shown, **settings)
    # A delay, or tqdm would show the beginning and the end of what is done before the first line is due.
    seldom = {"mininterval": SECONDS, "maxinterval": SECONDS, "delay": min(SECONDS, 1e-3)}
    words = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed}{postfix}"
    return auto.tqdm(items, file=_Lines(), bar_format=words, **{**seldom, **settings})


class _Lines:
    """Standard error for a bar that is written over again and again: a line each time."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip("\r\n "), file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
