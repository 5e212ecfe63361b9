from __future__ import annotations

import numpy as np
import pytest
import torch

from drive_unet.widgets.exercises import check


def verdict(capsys, *args, **kwargs) -> str:
    assert check(*args, **kwargs) is None
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    return printed.out[:-1]


@pytest.mark.parametrize("answer", [None, ..., (3, ...), [None, 1], {"a": ...}])
def test_not_answered_yet(capsys, answer):
    assert verdict(capsys, answer, 3, "count them") == "Not answered yet. Hint: count them"
    assert verdict(capsys, answer, lambda a: a > 2, "count them") == "Not answered yet. Hint: count them"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (3, 3),
        (3.0, 3),
        (np.int64(3), 3),
        (torch.tensor([3.0], requires_grad=True), 3),
        (0.1 + 0.2, 0.3),
        (True, True),
        (np.bool_(True), True),
        (" Green ", "green"),
        ([584, 565], (584, 565)),
        (torch.Size([1, 3]), (1, 3)),
        (np.eye(2), torch.eye(2)),
        (float("nan"), float("nan")),
        ({"a": 1}, {"a": 1.0}),
        ({1, 2}, {2, 1}),
        (["fp", 2], ("FP", 2)),
        (np.float32, np.float32),
        (torch.float32, torch.float32),
        (5, lambda answer: answer > 4),
        (np.array([5, 6]), lambda answer: answer > 4),
        (torch.tensor([5, 6]), lambda answer: answer > 4),
    ],
)
def test_right(capsys, answer, expected):
    assert verdict(capsys, answer, expected, "think") == "Right."


class Odd:
    """Throws whatever is asked of it."""

    def __getattr__(self, name):
        if name == "__name__":  # pytest asks
            raise AttributeError(name)
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("eq")

    __hash__ = None

    def __array__(self, *args, **kwargs):
        raise RuntimeError("array")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (4, 3),
        (0.31, 0.3),
        ("3", 3),
        (3, "3"),
        ("red", "green"),
        (False, True),
        ((584, 565, 3), (584, 565)),
        (3, (584, 565)),
        (np.eye(3), np.eye(2)),
        (np.zeros((2, 0)), 3),
        ([[1, 2], [3]], np.ones((2, 2))),
        ({"b": 1}, {"a": 1}),
        (3, {"a": 1}),
        (3, {1, 2}),
        (Odd(), 3),
        (Odd(), "a"),
        (3, Odd()),
        (Odd(), lambda answer: answer > 2),
        (3, lambda answer: answer.missing),
        (3, lambda answer: None),
        (np.array([3, 5]), lambda answer: answer > 4),
        (np.array(["a"]), 3),
        (object(), 3),
        (lambda: 3, 3),
        (np.float32, np.float64),
        (10**400, 3.0),
    ],
)
def test_not_yet(capsys, answer, expected):
    assert verdict(capsys, answer, expected, "think") == "Not yet. Hint: think"


def test_tolerance(capsys):
    assert verdict(capsys, 0.712, 0.7, "measure", tolerance=0.02) == "Right."
    assert verdict(capsys, 0.73, 0.7, "measure", tolerance=0.02) == "Not yet. Hint: measure"
    assert verdict(capsys, [9, 11], (10, 10), "measure", tolerance=1) == "Right."
