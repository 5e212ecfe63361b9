"""Self-checking exercises: a verdict in one line, a hint after a try that failed, and never an exception.

What is right stands here in the package, in a module a notebook, and not in the notebook's cell: a number
within a tolerance, or the behaviour of the reader's code on inputs that the cell does not show.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Exercise:
    """What an exercise expects.

    Attributes:
        verify: called with the answer, and with what `check` is given besides, it says whether that is
            right: True, or False, or a sentence about what is wrong. It may raise whatever it likes, which
                means wrong.
        hint: what to think of next, shown after a try that failed.
    """

    verify: Callable[..., bool | str]
    hint: str


def check(exercise: str, answer: Any, **given: Any) -> None:
    """Judge the answer to an exercise, and print one line: "Not answered yet.", "Right." or "Not yet ...".

    Nothing is ever raised, whatever the answer is; and nothing is said before there is one. What the reader's
    code prints meanwhile is not shown.

    Args:
        exercise: number of the notebook and of the exercise in it, such as "05-2".
        answer: the reader's: a value, or a function or a class. None or `...` (alone, or anywhere in a
            tuple, list or dict) means not answered yet; so does a function that returns None or `...` where
            it must not.
        given: what the answer depends on, where it is not the same for all data.

    Raises:
        ValueError: if there is no such exercise.
    """
    expected = _find(exercise)
    if _is_open(answer):
        print("Not answered yet.")
        return
    state = torch.get_rng_state()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what the reader's code prints is not the verdict
            verdict = expected.verify(answer, **given)
        verdict = verdict if isinstance(verdict, str) else _truth(verdict)
    except NotAnswered:
        print(
            "Not answered yet." if _is_empty(answer) else "Not answered yet: your function returns nothing."
        )
        return
    except Exception as error:  # an odd answer is a wrong answer
        verdict = f"it ends in {type(error).__name__}: {error}".split("\n")[0]
    finally:
        torch.set_rng_state(state)
    if verdict is True:
        print("Right.")
    else:
        reason = f": {verdict.rstrip('.')}" if isinstance(verdict, str) else ""
        print(f"Not yet{reason}. Hint: {expected.hint}")


class NotAnswered(Exception):
    """The reader's function is still the empty one of the notebook."""


def answered(value: Any) -> Any:
    """What the reader's function returned; `NotAnswered` if that is None or `...`."""
    if _is_open(value):
        raise NotAnswered
    return value


def near(expected: Any, tolerance: float | None = None) -> Callable[[Any], bool]:
    """A `verify` for values: equal, numbers to one part in a million or within `tolerance`.

    Case and outer blanks of strings do not matter, nor does tuple against list.
    """
    return lambda answer: _same(answer, expected, tolerance)


def _find(exercise: str) -> Exercise:
    notebook = exercise.partition("-")[0]
    try:
        exercises = import_module(f"drive_unet.widgets.exercises.notebook_{notebook}").EXERCISES
    except ModuleNotFoundError:
        exercises = {}
    if exercise not in exercises:
        known = f"there are {', '.join(exercises)}" if exercises else f"notebook {notebook} has none"
        raise ValueError(f"there is no exercise {exercise!r}: {known}")
    return exercises[exercise]


def _is_open(answer: Any) -> bool:
    if answer is None or answer is Ellipsis:
        return True
    if isinstance(answer, dict):
        answer = list(answer.values())
    return isinstance(answer, (list, tuple)) and any(_is_open(part) for part in answer)


def _is_empty(function: Any) -> bool:
    """Whether a function is still the notebook's, whose body is `...`."""
    code = getattr(function, "__code__", None)
    return code is None or len(code.co_code) <= len(_empty.__code__.co_code)


def _empty(): ...


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
    given, wanted = _as_array(answer), _as_array(expected)
    if given is not None and wanted is not None:
        return _close(given, wanted, tolerance)
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
