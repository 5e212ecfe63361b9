"""The package's one exception of its own, and those of others."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the remedy."""


# What Python and PyTorch raise where code does not fit what it is given; what a caller's own code raises on
# purpose, to stop for instance, is of other kinds and goes through.
MISFITS = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of which PyTorch tells in a RuntimeError's words alone, on CPUs at least."""
    words = f"{type(error).__name__} {error}".lower() if isinstance(error, RuntimeError) else ""
    signs = ("outofmemory", "out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in words for sign in signs)


def in_one_line(error: Exception) -> str:
    """What an error of another library says, cut to a phrase for a message of one's own."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):  # whose words are the key alone
        words = f"KeyError {words}"
    return words.rstrip(".") if len(words) <= 160 else f"{words[:157]}..."
