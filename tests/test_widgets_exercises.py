from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from drive_unet import measured
from drive_unet.data import Drive
from drive_unet.metrics import confusion
from drive_unet.models import ConvBlock
from drive_unet.plots.overlays import COLOURS, calibre, rgb
from drive_unet.widgets.exercises import Exercise, check, checking
from drive_unet.widgets.exercises.checking import answered, near


@pytest.fixture
def verdict(capsys, monkeypatch):
    """What `check` prints of an answer to an exercise made for the test."""

    def judge(answer, verify, **given) -> str:
        verify = verify if callable(verify) and not isinstance(verify, type | torch.Tensor) else near(verify)
        monkeypatch.setattr(checking, "_find", lambda name: Exercise(verify, "think"))
        assert check("99-1", answer, **given) is None
        printed = capsys.readouterr()
        assert printed.err == ""
        assert printed.out.count("\n") == 1
        return printed.out[:-1]

    return judge


@pytest.mark.parametrize("answer", [None, ..., (3, ...), [None, 1], {"a": ...}])
def test_nothing_is_said_before_there_is_an_answer(verdict, answer):
    assert verdict(answer, 3) == "Not answered yet."
    assert verdict(answer, lambda a: a > 2) == "Not answered yet."
    assert verdict(lambda x: ..., lambda function: answered(function(3)) == 9) == "Not answered yet."


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
def test_right(verdict, answer, expected):
    assert verdict(answer, expected) == "Right."


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
        (3, lambda answer: None),
        (np.array([3, 5]), lambda answer: answer > 4),
        (np.array(["a"]), 3),
        (object(), 3),
        (lambda: 3, 3),
        (np.float32, np.float64),
        (10**400, 3.0),
    ],
)
def test_not_yet(verdict, answer, expected):
    assert re.fullmatch(r"Not yet(: it ends in \w+: .*)?\. Hint: think", verdict(answer, expected))


def test_tolerance(verdict):
    assert verdict(0.712, near(0.7, 0.02)) == "Right."
    assert verdict(0.73, near(0.7, 0.02)) == "Not yet. Hint: think"
    assert verdict([9, 11], near((10, 10), 1)) == "Right."


def test_code_is_judged_by_what_it_does(verdict):
    def squares(function):
        return all(answered(function(n)) == n * n for n in (2, 3)) or "three times three is nine"

    assert verdict(lambda n: n * n, squares) == "Right."
    assert verdict(lambda n: 2 * n, squares) == "Not yet: three times three is nine. Hint: think"
    assert verdict(lambda n: n / 0, squares).startswith(
        "Not yet: it ends in ZeroDivisionError: division by zero"
    )
    assert verdict(lambda n: print("noise") or n * n, squares) == "Right."

    def forgets_to_return(number):
        number * number

    assert verdict(forgets_to_return, squares) == "Not answered yet: your function returns nothing."
    assert verdict(5, lambda answer, limit: answer < limit, limit=6) == "Right."


def test_judging_leaves_chance_alone(verdict):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    verdict(1, lambda answer: torch.manual_seed(0) and True)
    assert torch.rand(1) == expected


def test_an_unknown_exercise_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no exercise '03-99': there are 03-1, 03-2"):
        check("03-99", 1)
    with pytest.raises(ValueError, match="no exercise '77-1': notebook 77 has none"):
        check("77-1", 1)


# ---------------------------------------------------------------------- measured numbers


def test_a_measured_number_is_printed_with_its_unit(capsys, monkeypatch):
    monkeypatch.setattr(Drive, "latest", "embedded")
    measured("Dice", 0.8314, 0.8, 0.9)
    measured("cost", 1234.5, 1000, 2000, digits=1, unit="ms")
    assert capsys.readouterr().out == "Dice ≈ 0.831\ncost ≈ 1,234.5 ms\n"


def test_a_number_out_of_range_fails_on_the_embedded_photographs_alone(capsys, monkeypatch):
    for latest in (None, "embedded"):
        monkeypatch.setattr(Drive, "latest", latest)
        for value in (0.7999, 0.91, float("nan")):
            with pytest.raises(AssertionError, match="Dice is .*, outside 0.8 to 0.9"):
                measured("Dice", value, 0.8, 0.9)
    monkeypatch.setattr(Drive, "latest", "DRIVE")
    measured("Dice", 0.1, 0.8, 0.9)
    assert capsys.readouterr().out.endswith("Dice ≈ 0.100\n")


def test_a_number_without_a_range_is_printed_whatever_it_is(capsys, monkeypatch):
    monkeypatch.setattr(Drive, "latest", "embedded")
    measured("mean calibre", float("nan"), None, None)
    measured("mean calibre", 1e6, None, None, digits=0)
    assert capsys.readouterr().out == "mean calibre ≈ nan\nmean calibre ≈ 1,000,000\n"


# ---------------------------------------------------------------------- the exercises of the notebooks


class Residual(torch.nn.Module):
    def __init__(self, inputs, outputs, shortcut=True):
        super().__init__()
        self.block = ConvBlock(inputs, outputs)
        self.way = torch.nn.Identity() if inputs == outputs else torch.nn.Conv2d(inputs, outputs, 1)
        self.shortcut = shortcut

    def forward(self, x):
        return self.block(x) + self.way(x) if self.shortcut else self.block(x)


@pytest.mark.parametrize(
    ("exercise", "right", "wrong"),
    [
        ("03-1", 16_256, 16_255),
        ("03-2", 3, 2),
        ("03-3", Residual, lambda i, o: Residual(i, o, shortcut=False)),
    ],
)
def test_exercises_tell_right_from_wrong(capsys, exercise, right, wrong):
    for answer, expected in ((right, "Right."), (wrong, "Not yet"), (None, "Not answered yet.")):
        check(exercise, answer)
        assert capsys.readouterr().out.startswith(expected)


# ---------------------------------------------------------------------------------------------- notebook 00


def verdict_on(capsys, exercise, answer, **given):
    check(exercise, answer, **given)
    return capsys.readouterr().out.strip()


def test_00_1_the_window_of_a_longer_chain(capsys):
    for right in (10, (10, 10)):
        assert verdict_on(capsys, "00-1", right) == "Right."
    assert verdict_on(capsys, "00-1", 8).startswith("Not yet. Hint")


def test_00_2_the_label_of_a_photograph(capsys):
    def right(photograph):
        number = photograph.name.split("_")[0]
        return photograph.parent.parent / "1st_manual" / f"{number}_manual1.gif"

    def by_replacing(photograph):  # goes wrong where the copy's own folders have such names
        text = photograph.as_posix().replace("images", "1st_manual").replace("training.tif", "manual1.gif")
        return Path(text.replace("test.tif", "manual1.gif"))

    assert verdict_on(capsys, "00-2", right) == "Right."
    assert verdict_on(capsys, "00-2", lambda photograph: str(right(photograph))) == "Right."
    assert "1st_manual/training/copy" in verdict_on(capsys, "00-2", by_replacing)
    assert verdict_on(capsys, "00-2", lambda photograph: ...) == "Not answered yet."


def test_00_3_an_accuracy_inside_the_field_of_view(capsys):
    def right(prediction, label, fov):
        return (prediction == label)[fov].sum() / fov.sum()

    def everywhere(prediction, label, fov):
        return (prediction == label).sum() / label.shape[0] / label.shape[1]

    def of_arrays(prediction, label, fov):
        return np.mean((prediction == label)[fov].astype(float))

    for answer in (right, of_arrays, lambda p, label, fov: (p == label)[fov].float().mean()):
        assert verdict_on(capsys, "00-3", answer) == "Right."
    assert verdict_on(capsys, "00-3", everywhere).startswith("Not yet: it counts the whole frame.")
    for whole_frame in (lambda p, label, fov: (p == label).mean(), lambda p, label, fov: np.mean(p == label)):
        assert "it counts the whole frame" in verdict_on(capsys, "00-3", whole_frame)
    assert verdict_on(capsys, "00-3", lambda *masks: 0.8).startswith("Not yet: ")
    assert verdict_on(capsys, "00-3", lambda *masks: ...) == "Not answered yet."


# ---------------------------------------------------------------------------------------------- notebook 01


def test_01_1_nothing_and_how_right_it_is(capsys):
    fov = np.zeros((20, 20), bool)
    fov[5:15] = True
    vessels = np.zeros((20, 20), bool)
    vessels[6:8] = True
    given = {"vessels": vessels, "fov": fov}
    assert verdict_on(capsys, "01-1", 0.8, **given) == "Right."
    assert "on the whole frame" in verdict_on(capsys, "01-1", 0.9, **given)
    for wrong in (0.2, 80, "0.8"):
        assert verdict_on(capsys, "01-1", wrong, **given).startswith("Not yet. Hint")


def test_01_2_the_length_of_the_thinnest(capsys):
    vessels = np.zeros((100, 100), bool)
    vessels[20:28, 5:95] = True  # thick
    vessels[60:62, 5:95] = True  # thin: half of the length, a fifth of the area
    width, line = calibre(vessels)
    length, area = ((width[part] <= 2.5).mean() for part in (line, vessels))
    assert abs(length - area) > 0.2
    assert verdict_on(capsys, "01-2", length, vessels=vessels) == "Right."
    assert "not of the length" in verdict_on(capsys, "01-2", area, vessels=vessels)


def vessels_by_halves(grey):
    mask = grey > (int(grey.min()) + int(grey.max())) / 2
    return ~mask if mask.mean() > 0.5 else mask


def of_one_level(grey, answer):
    return answer if grey.min() == grey.max() else vessels_by_halves(grey)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda grey: grey > 127, "{0, 1}"),
        (
            lambda grey: grey > (grey.min(keepdims=True) + grey.max(keepdims=True)) / 2,
            "{3, 253}",
        ),  # overflows
        (lambda grey: grey == grey.max(), "with some grey"),
        (lambda grey: grey > (int(grey.min()) + int(grey.max())) / 2, "dark on white"),
        (lambda grey: of_one_level(grey, grey == 0), "wrong in 64 of 64 pixels"),
        (lambda grey: of_one_level(grey, np.zeros_like(grey)), "it gives uint8 instead of bool"),
        (lambda grey: of_one_level(grey, False), "it gives the shape () instead of (8, 8)"),
        (lambda grey: vessels_by_halves(grey)[None], "the shape (1, 40, 30)"),
    ],
)
def test_01_3_any_label_made_0_and_1(capsys, wrong, said):
    assert said in verdict_on(capsys, "01-3", wrong)
    assert verdict_on(capsys, "01-3", vessels_by_halves) == "Right."


# ---------------------------------------------------------------------------------------------- notebook 02


def test_02_1_the_surround_and_the_retina(capsys):
    fov = torch.ones(1, 20, 20, dtype=torch.uint8)
    fov[:, :5] = 0
    image = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)) * fov
    sample = SimpleNamespace(image=image, fov=fov)
    whole = (image - image.mean((1, 2), keepdim=True)) / image.std((1, 2), keepdim=True)
    outside, inside = (whole[:, fov[0] == part].mean().item() for part in (0, 1))
    assert verdict_on(capsys, "02-1", (outside, inside), sample=sample) == "Right."
    for wrong, said in (
        ((inside, outside), ": the surround comes first"),
        ((outside, 0), ": the surround is right, the retina is not"),
        ((9, inside), ": the retina is right, the surround is not"),
        ((0, 0), ": that is what standardising inside the field of view gives"),
        (outside, ": two numbers are wanted"),
        ((9, 9), ". Hint"),
    ):
        assert verdict_on(capsys, "02-1", wrong, sample=sample).startswith(f"Not yet{said}")
    assert verdict_on(capsys, "02-1", (None, None), sample=sample) == "Not answered yet."


def test_02_2_moved_together(capsys):
    def moved(part, rows, columns):
        return torch.nn.functional.pad(part, (columns, -columns, rows, -rows))

    right = verdict_on(capsys, "02-2", lambda i, v, r, c: (moved(i, r, c), moved(v, r, c)))
    assert right == "Right."
    for wrong, said in (
        (lambda i, v, r, c: (moved(i, r, c), v), "the label has not moved"),
        (lambda i, v, r, c: (moved(i, r, c), moved(torch.ones_like(v), r, c)), "not where it should be"),
        (lambda i, v, r, c: (moved(i, r, c), moved(v.flip(-1), r, c)), "not where it should be"),
        (lambda i, v, r, c: (torch.roll(i, (r, c), (1, 2)), v), "comes in on the other"),
    ):
        assert said in verdict_on(capsys, "02-2", wrong)


# ---------------------------------------------------------------------------------------------- notebook 04


def test_04_1_the_price_of_not_knowing(capsys):
    for right in (0.562, 0.5623):
        assert verdict_on(capsys, "04-1", right) == "Right."
    for wrong in (0.69, 0.25, 0.36, 1):
        assert verdict_on(capsys, "04-1", wrong).startswith("Not yet. Hint")


# ---------------------------------------------------------------------------------------------- notebook 05


def test_05_1_the_dice_of_everything_vessel(capsys):
    for prevalence in (0.11, 0.3):
        right = 2 * prevalence / (1 + prevalence)
        assert verdict_on(capsys, "05-1", right, prevalence=prevalence) == "Right."
        for wrong, said in ((prevalence, ": that is the precision alone"), (right + 0.01, "."), (0.5, ".")):
            assert verdict_on(capsys, "05-1", wrong, prevalence=prevalence).startswith(f"Not yet{said}")
    assert verdict_on(capsys, "05-1", None, prevalence=0.11) == "Not answered yet."


def test_05_2_a_score_after_a_squash(capsys):
    def squash(plane):
        return np.asarray(plane, float).reshape(8, 2, 8, 2).mean(axis=(1, 3))

    rng = np.random.default_rng(0)
    vessels = np.repeat(rng.random((2, 16, 4)) < 0.3, 4, axis=2)
    given = {
        "maps": [np.where(label, 0.7, 0.2) + 0.35 * rng.random(label.shape) - 0.15 for label in vessels],
        "labels": list(vessels),
        "fovs": [np.ones((16, 16), bool)] * 2,
        "threshold": 0.6,
    }
    small = [np.stack([squash(plane) for plane in planes]) for planes in (given["maps"], vessels)]
    right = confusion(small[0] >= 0.6, small[1] >= 0.5).dice
    native = confusion([p >= 0.6 for p in given["maps"]], given["labels"]).dice
    assert abs(right - native) > 0.02
    assert verdict_on(capsys, "05-2", right, squash=squash, **given) == "Right."
    said = verdict_on(capsys, "05-2", native, squash=squash, **given)
    assert said.startswith("Not yet: that is the Dice at native size.")
    drawn = [squash(p >= 0.6) >= 0.5 for p in given["maps"]]
    cut_first = confusion(drawn, list(small[1] >= 0.5)).dice
    assert abs(cut_first - right) > 0.02
    assert "squashes the finished drawing" in verdict_on(capsys, "05-2", cut_first, squash=squash, **given)
    assert verdict_on(capsys, "05-2", right - 0.01, squash=squash, **given).startswith("Not yet. Hint")


def test_05_3_a_bootstrap_interval(capsys):
    def right(values):
        drawn = np.random.default_rng(1).choice(values, (1000, len(values)))
        return tuple(np.percentile(drawn.mean(axis=1), (2.5, 97.5)))

    def of_the_values(values):
        return tuple(np.percentile(values, (2.5, 97.5)))

    def narrow(values):  # the 90 % interval
        draws = np.random.default_rng(1).choice(values, (1000, len(values))).mean(axis=1)
        return tuple(np.percentile(draws, (5, 95)))

    assert verdict_on(capsys, "05-3", right) == "Right."
    assert "wide where about" in verdict_on(capsys, "05-3", narrow)
    assert "wide where about" in verdict_on(capsys, "05-3", of_the_values)
    assert "it makes 0.100 to 0.200" in verdict_on(capsys, "05-3", lambda values: (0.1, 0.2))
    assert verdict_on(capsys, "05-3", lambda values: ...) == "Not answered yet."


# ---------------------------------------------------------------------------------------------- notebook 06


def test_06_1_the_colour_that_can_only_shrink(capsys):
    assert verdict_on(capsys, "06-1", "blue") == "Right."
    for wrong in ("white", "orange"):
        assert verdict_on(capsys, "06-1", wrong).startswith("Not yet. Hint")


def test_06_2_the_highest_threshold_that_finds_enough(capsys):
    def found_by_calibre(threshold):
        return [1 - threshold / 2, 1.0]

    assert verdict_on(capsys, "06-2", 0.40, found_by_calibre=found_by_calibre) == "Right."
    for wrong in (0.41, 0.39, 0.38, 1.0):
        assert verdict_on(capsys, "06-2", wrong, found_by_calibre=found_by_calibre).startswith("Not yet")


def test_06_3_a_picture_of_errors(capsys):
    def right(prediction, vessels, fov):
        picture = np.zeros((*fov.shape, 3), np.uint8)
        kinds = {"TP": prediction & vessels, "FP": prediction & ~vessels, "FN": vessels & ~prediction}
        for kind, mask in kinds.items():
            picture[mask & fov] = rgb(COLOURS[kind])
        return picture

    def everywhere(prediction, vessels, fov):
        return right(prediction, vessels, np.ones_like(fov))

    def exchanged(prediction, vessels, fov):
        return right(vessels, prediction, fov)

    assert verdict_on(capsys, "06-3", right) == "Right."
    assert "colour outside the field of view" in verdict_on(capsys, "06-3", everywhere)
    assert "have another colour" in verdict_on(capsys, "06-3", exchanged)
    assert "not (9, 7, 3) uint8" in verdict_on(capsys, "06-3", lambda *masks: right(*masks) / 255)
    assert verdict_on(capsys, "06-3", lambda *masks: ...) == "Not answered yet."


# ---------------------------------------------------------------------------------------------- notebook 07


def test_07_1_a_width_travels_as_a_share_of_the_field_of_view(capsys):
    assert verdict_on(capsys, "07-1", 6 * 540 / 1350) == "Right."
    for wrong in (6, 15, 2.5, "2.4"):
        assert verdict_on(capsys, "07-1", wrong).startswith("Not yet. Hint")


def test_07_2_arc_over_chord(capsys):
    def right(points):
        return np.linalg.norm(np.diff(points, axis=0), axis=1).sum() / np.linalg.norm(points[-1] - points[0])

    assert verdict_on(capsys, "07-2", right) == "Right."
    assert "of a straight line" in verdict_on(capsys, "07-2", lambda points: right(points) - 1)
    assert "of a straight line" in verdict_on(capsys, "07-2", lambda points: len(points) / 2)
    assert verdict_on(capsys, "07-2", lambda points: ...) == "Not answered yet."


def test_07_3_bias_and_correlation(capsys):
    def right(true, seen):
        return 100 * (seen.mean() / true.mean() - 1), np.corrcoef(true, seen)[0, 1]

    assert verdict_on(capsys, "07-3", right) == "Right."
    assert "it makes" in verdict_on(capsys, "07-3", lambda true, seen: (seen.mean() - true.mean(), 1))
    assert "the correlation is" in verdict_on(capsys, "07-3", lambda true, seen: (right(true, seen)[0], 1))
    assert verdict_on(capsys, "07-3", lambda true, seen: ...) == "Not answered yet."
