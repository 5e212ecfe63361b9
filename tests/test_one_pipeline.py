"""One pipeline: Python, the command line with weights, and its predictions on disk give the same scores."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import write_files

from drive_unet import DRIVEDataset, UNet, evaluate, predict, predict_all, segment
from drive_unet.commands.main import main
from drive_unet.data.reading import read_prediction
from drive_unet.evaluation.results import KEYS, plain
from drive_unet.painter.painting import paint
from drive_unet.preprocessing.prepare import Preprocessing

NATIVE = (96, 92)  # height, width
SCALES = {"half": 0.5, "native": 1.0, "double": 2.0}
MASKS = ("with masks", "without masks")
PASSES = ("one pass", "four flips")
OF_MASKS = ("Dice", "Acc", "Se", "Sp", "MCC", "clDice")  # scores that a finished segmentation has


@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    """All ways through the package, by whether there are masks and by the number of passes."""
    root = tmp_path_factory.mktemp("pipeline")
    eyes = {
        name: paint(7 + number, tuple(round(side * scale) for side in NATIVE))
        for number, (name, scale) in enumerate(SCALES.items())
    }
    torch.manual_seed(3)
    model = UNet(widths=(8, 8)).eval()
    with torch.no_grad():  # a random network's probabilities lie closely around one half: spread them
        list(model.parameters())[-2].mul_(8)
    model.preprocessing = Preprocessing(fov_width=int(eyes["native"].fov.any(axis=0).sum()))
    return SimpleNamespace(
        eyes=eyes,
        model=model,
        **{kind.replace(" ", "_"): _trip(root / kind, eyes, model, kind) for kind in MASKS},
    )


def _trip(folder, eyes, model, kind):
    for name, eye in eyes.items():
        files = {"images": eye.image, "labels": eye.vessels}
        if kind == "with masks":
            fov = eye.fov.copy()
            fov[: len(fov) // 3] = False  # unlike what is found in the photograph
            files["fov"] = fov
        write_files(folder / "data", {f"{part}/{name}.png": picture for part, picture in files.items()})
    fov_dir = folder / "data" / "fov" if kind == "with masks" else None
    photographs = DRIVEDataset(folder / "data" / "images", folder / "data" / "labels", fov_dir=fov_dir)
    maps = {passes: predict_all(model, photographs, tta=passes == "four flips") for passes in PASSES}
    # The two thresholds cut different shares off, so that one can never pass for the other.
    inside = {passes: np.concatenate([m[m > 0] for m in maps[passes]]) for passes in PASSES}
    model.threshold_single = float(np.quantile(inside["one pass"], 0.55))
    model.threshold = float(np.quantile(inside["four flips"], 0.45))
    weights = folder / "weights.safetensors"
    model.save_pretrained(weights)
    scored = {passes: evaluate(model, photographs, tta=passes == "four flips") for passes in PASSES}
    return SimpleNamespace(folder=folder, photographs=photographs, maps=maps, weights=weights, scored=scored)


def done(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def scores(capsys, *arguments):
    capsys.readouterr()
    done("evaluate", *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_half_and_double_size_are_resampled_and_native_size_is_not(trips):
    scales = {name: trips.model.preprocessing.scale(eye.fov) for name, eye in trips.eyes.items()}
    assert scales["native"] == 1
    assert scales["half"] == pytest.approx(2, rel=0.1)
    assert scales["double"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("kind", MASKS)
def test_three_ways_to_a_score_agree(trips, kind, passes, tmp_path, capsys):
    trip = getattr(trips, kind.replace(" ", "_"))
    expected, data = trip.scored[passes], ("--data", trip.folder / "data")
    flips = ["--tta"] if passes == "four flips" else []
    assert all(0 < value < 1 for value in (expected.pooled[key] for key in ("AUC", "Dice", "Acc", "Se")))

    weights = scores(capsys, "--weights", trip.weights, *data, *flips)
    assert weights["threshold"] == expected.threshold
    assert {key: weights[key] for key in KEYS.values()} == pytest.approx(plain(expected.pooled), abs=1e-6)
    for row, known in zip(weights["per_image"], expected.per_image, strict=True):
        assert row["name"] == known["name"]
        assert {key: row[key] for key in KEYS.values()} == pytest.approx(plain(known), abs=1e-6)

    out = tmp_path / "out"
    done("predict", trip.folder / "data" / "images", "--out", out, "--weights", trip.weights, *flips)
    vessels = scores(capsys, out, *data)  # both kinds of file: segmentations are scored as they are
    assert {key: vessels[KEYS[key]] for key in OF_MASKS} == pytest.approx(
        {key: expected.pooled[key] for key in OF_MASKS}, abs=1e-6
    )
    assert vessels["threshold"] == expected.threshold  # recorded by predict
    probability = scores(capsys, out, *data, "--threshold", expected.threshold)

    # Maps of probability are rounded to 16 bits and to nothing else: half a step off at most, and their
    # scores are those of maps rounded in Python. AUC and AP change where two pixels fall on one level.
    for name, probable in zip(trip.photographs.names, trip.maps[passes], strict=True):
        written = read_prediction(out / f"{name}_probability.png")
        np.testing.assert_allclose(written, probable, atol=0.5 / 65535 + 1e-7)
    rounded = [np.round(m * 65535).astype(np.float32) / np.float32(65535) for m in trip.maps[passes]]
    by_hand = evaluate(rounded, trip.photographs, threshold=expected.threshold)
    rows = {key: probability[key] for key in KEYS.values()}
    assert rows == pytest.approx(plain(by_hand.pooled), abs=1e-6)
    for key in ("AUC", "AP"):
        assert probability[KEYS[key]] == pytest.approx(expected.pooled[key], abs=1e-4)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("kind", MASKS)
def test_a_path_is_predicted_as_the_dataset_that_holds_it(trips, kind, passes):
    trip, flips = getattr(trips, kind.replace(" ", "_")), passes == "four flips"
    rows = zip(trip.photographs.names, trip.photographs, trip.maps[passes], strict=True)
    for name, sample, expected in rows:
        path = trip.folder / "data" / "images" / f"{name}.png"
        np.testing.assert_allclose(predict(trips.model, path, tta=flips), expected, atol=1e-6)
        segmented = segment(trips.model, str(path), tta=flips, threshold=0.5)
        np.testing.assert_allclose(segmented.probability, expected, atol=1e-6)
        assert (segmented.fov == (sample.fov[0].numpy() > 0)).all()


def test_the_two_thresholds_and_the_masks_make_a_difference(trips):
    one, four = (trips.with_masks.scored[passes] for passes in PASSES)
    assert one.threshold != four.threshold
    assert one.pooled["Dice"] != four.pooled["Dice"]
    assert one.pooled["AUC"] != trips.without_masks.scored["one pass"].pooled["AUC"]
