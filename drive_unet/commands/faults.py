"""Errors as one line for the terminal."""

from __future__ import annotations

import sys
import traceback

from drive_unet.errors import is_out_of_memory

EXPECTED = (ValueError, OSError, FloatingPointError, RuntimeError)  # whose messages are sentences


def in_a_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return "not enough memory for it: close other programs, use another --device, or a smaller picture"
    if text and isinstance(error, EXPECTED):
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text} (--debug shows where)"


def complain(fault: str, error: BaseException | None = None, debug: bool = False) -> None:
    """Print a fault to stderr, behind the traceback of its error where that is asked for."""
    if debug and error is not None:
        traceback.print_exception(error)
    print(f"drive-unet: {fault}", file=sys.stderr, flush=True)
