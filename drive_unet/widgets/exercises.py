"""Self-checking exercises: one line of answer, a hint where it is needed, and never an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def check(
    answer: Any, expected: Any | Callable[[Any], Any], hint: str, *, tolerance: float | None = None
) -> None:
    """Compare an exercise's answer with what is expected, and print one line.

    The line is "Not answered yet. Hint: ...", "Right." or "Not yet. Hint: ...". Nothing is ever raised,
    whatever the answer is.

    Args:
        answer: the reader's; None or `...` (alone, or anywhere in a tuple or list) means not answered yet.
        expected: a number, string, array, tensor, or tuple, list or dict of such; or a function that takes
            the answer and says whether it is right. Case and outer blanks of strings do not matter, nor does
            tuple against list.
        hint: what to think of next.
        tolerance: greatest allowed difference of a number; None allows floats one part in a million.
    """
    try:
        if _is_open(answer):
            print(f"Not answered yet. Hint: {hint}")
            return
        # A class such as torch.Tensor can be called, but is a value here.
        predicate = callable(expected) and not isinstance(expected, (type, torch.Tensor, torch.nn.Module))
        right = _truth(expected(answer)) if predicate else _same(answer, expected, tolerance)
    except Exception:  # an odd answer is a wrong answer
        right = False
    print("Right." if right else f"Not yet. Hint: {hint}")


def _is_open(answer: Any) -> bool:
    if answer is None or answer is Ellipsis:
        return True
    if isinstance(answer, dict):
        answer = list(answer.values())
    return isinstance(answer, (list, tuple)) and any(_is_open(part) for part in answer)


def _truth(verdict: Any) -> bool:
    """A predicate may answer with an array; every element counts."""
    return bool(verdict.all()) if hasattr(verdict, "all") else bool(verdict)


def _same(answer: Any, expected: Any, tolerance: float | None) -> bool:
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.strip().casefold() == expected.strip().casefold()
    if isinstance(answer, str):
        return False
    if isinstance(expected, dict):
        return (
            isinstance(answer, dict)
            and answer.keys() == expected.keys()
            and all(_same(answer[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, (set, frozenset)):
        return set(answer) == expected
    if isinstance(expected, (list, tuple)):
        parts = list(answer)
        return len(parts) == len(expected) and all(
            _same(part, other, tolerance) for part, other in zip(parts, expected, strict=True)
        )
    numbers = [_as_array(answer), _as_array(expected)]
    if all(array is not None for array in numbers):
        return _close(*numbers, tolerance)
    return _truth(answer == expected)


def _as_array(value: Any) -> np.ndarray | None:
    """Numbers of any kind as an array; None for anything else."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array if array.dtype.kind in "biufc" else None


def _close(answer: np.ndarray, expected: np.ndarray, tolerance: float | None) -> bool:
    if answer.size == expected.size == 1:  # 3, [3] and tensor(3.) are the same number
        answer, expected = answer.reshape(()), expected.reshape(())
    if answer.shape != expected.shape:
        return False
    if tolerance is None and answer.dtype.kind in "biu" and expected.dtype.kind in "biu":
        return bool((answer == expected).all())
    relative, absolute = (1e-6, 1e-12) if tolerance is None else (0.0, tolerance)
    if answer.dtype.kind == "b" or expected.dtype.kind == "b":
        answer, expected = answer.astype(np.float64), expected.astype(np.float64)
    return bool(np.isclose(answer, expected, rtol=relative, atol=absolute, equal_nan=True).all())
