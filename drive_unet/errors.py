"""The package's one exception of its own."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the remedy."""


def in_one_line(error: Exception) -> str:
    """What an error of another library says, cut to a phrase for a message of one's own."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.rstrip(".") if len(words) <= 160 else f"{words[:157]}..."
