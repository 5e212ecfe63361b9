"""The package's one exception of its own."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the remedy."""
