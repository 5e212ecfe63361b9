from __future__ import annotations

import csv
import json
import math
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from drive_unet.data import DRIVEDataset
from drive_unet.errors import DataError
from drive_unet.evaluation import (
    Evaluation,
    FinishedPredictions,
    compare,
    evaluate,
    evaluate_second_observer,
    evaluator,
    finished_predictions,
)
from drive_unet.metrics import SCORES, scores, streaming

SIZES = {"21": (64, 56), "22": (48, 64), "23": (60, 60)}


def scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photograph, vessels and field of view: wavy dark vessels in a bright disc."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    fov = np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.47 * min(size)
    vessels = (np.abs((columns + 4 * np.sin(rows / 9 + seed)) % 20 - 10) < 1.5) & fov
    noise = np.random.default_rng(seed).normal(0, 8, (*size, 3))
    image = np.clip((fov * 150 - vessels * 60)[..., None] + noise, 0, 255).astype(np.uint8)
    return image, vessels, fov


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for part in ("images", "1st_manual", "2nd_manual", "mask"):
        (root / part).mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        image, vessels, fov = scene(seed, size)
        Image.fromarray(image).save(root / "images" / f"{name}_training.tif")
        Image.fromarray(vessels.astype(np.uint8) * 255).save(root / "1st_manual" / f"{name}_manual1.gif")
        Image.fromarray(np.roll(vessels & fov, 1, axis=0).astype(np.uint8) * 255).save(
            root / "2nd_manual" / f"{name}_manual2.gif"
        )
        Image.fromarray(fov.astype(np.uint8) * 255).save(root / "mask" / f"{name}_training_mask.gif")
    return root


@pytest.fixture(scope="module")
def dataset(folder) -> DRIVEDataset:
    return DRIVEDataset(
        folder / "images", folder / "1st_manual", fov_dir=folder / "mask", second_dir=folder / "2nd_manual"
    )


@pytest.fixture(scope="module")
def maps(dataset) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    labels = [sample.vessels[0].numpy() for sample in dataset]
    return [((generator.random(v.shape) + v) / 2).astype(np.float32) for v in labels]


def parts(dataset):
    return [s.vessels[0].numpy() for s in dataset], [s.fov[0].numpy() for s in dataset]


def test_pooled_and_per_image_scores(dataset, maps):
    vessels, fovs = parts(dataset)
    found = evaluate(maps, dataset, threshold=0.4, name="noise")
    assert found.pooled == scores(maps, vessels, fovs, 0.4)
    assert [row["name"] for row in found.per_image] == found.names == list(SIZES)
    for row, *image in zip(found.per_image, maps, vessels, fovs, strict=True):
        assert {key: row[key] for key in SCORES} == scores(*image, 0.4)
    dice = [row["Dice"] for row in found.per_image]
    assert found.mean()["Dice"] == pytest.approx(np.mean(dice))
    assert found.std()["Dice"] == pytest.approx(np.std(dice, ddof=1))
    assert found.pooled["clDice"] == pytest.approx(found.mean()["clDice"])

    frame = evaluate(maps, dataset, threshold=0.4, inside_fov=False)
    assert frame.pooled == scores(maps, vessels, None, 0.4)
    assert frame.protocol.startswith("On the whole frame")


def test_protocol_names_region_images_and_threshold(dataset, maps):
    text = evaluate(maps, dataset, threshold=0.4, threshold_from="chosen on image 24").protocol
    assert text == (
        "Inside the field of view, at native size, pixels pooled over 3 images (21, 22, 23), clDice averaged "
        "over images; threshold ≈ 0.400, chosen on image 24."
    )
    assert "threshold ≈ 0.500, by default" in evaluate(maps, dataset).protocol
    assert "on 1 image (22)" in evaluate(maps[1:2], dataset.subset(["22"])).protocol


def test_accepted_forms_of_predictions_agree(dataset, maps):
    expected = evaluate(maps, dataset).pooled
    assert evaluate([torch.from_numpy(p)[None] for p in maps], dataset).pooled == expected
    called = [p >= 0.5 for p in maps]
    finished = evaluate(called, dataset)
    assert finished.threshold is None
    assert finished.pooled["Dice"] == expected["Dice"]
    assert math.isnan(finished.pooled["AUC"])
    assert evaluate([c.astype(np.uint8) for c in called], dataset).pooled == pytest.approx(
        finished.pooled, nan_ok=True
    )


class Brightness(torch.nn.Module):
    """Calls dark pixels vessel, with a parameter so that it lives on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))

    def threshold_for(self, tta: bool) -> float:
        return 0.55 if tta else 0.6

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scale * (0.5 - image.mean(dim=1, keepdim=True))


def test_a_network_is_scored_with_its_own_threshold_and_without_the_transform(dataset):
    network = Brightness()
    augmented = dataset.subset(
        dataset.names, transform=lambda sample: sample._replace(image=sample.image * 0)
    )
    found = evaluate(network, augmented)
    assert found.threshold == 0.6
    assert found.name == "Brightness"
    assert "threshold ≈ 0.600, the network's own" in found.protocol
    assert found.pooled["AUC"] > 0.9  # not 1: in so small a field many vessels lie along its rim, see `Rim`
    assert found.pooled == evaluate(network, dataset).pooled
    assert evaluate(network, dataset, threshold=0.2).threshold == 0.2
    flipped = evaluate(network, dataset, tta=True)
    assert flipped.name == "Brightness, 4 flips averaged"
    assert "threshold ≈ 0.550, the network's own for four flips." in flipped.protocol
    foreign = torch.nn.Conv2d(3, 1, 1)
    foreign.threshold = 0.7  # of which nobody knows whether it is for flips
    assert "threshold ≈ 0.500, by default." in evaluate(foreign, dataset).protocol


def test_second_observer(dataset, folder):
    found = evaluate_second_observer(dataset)
    assert found.name == "second observer"
    assert found.names == list(SIZES)
    assert 0.5 < found.pooled["Dice"] < 1
    assert math.isnan(found.pooled["AUC"])
    assert found.threshold is None
    assert evaluate_second_observer(DRIVEDataset(folder / "images", folder / "1st_manual")) is None


def test_text_table_is_aligned(dataset, maps):
    text = str(evaluate(maps, dataset, name="noise"))
    title, header, rule, *rows, protocol = text.splitlines()
    assert title == "noise"
    assert header.split() == list(SCORES)
    assert [row.split("  ")[0].strip() for row in rows] == ["pooled", "mean", "± sd"]
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert protocol.endswith(".")
    assert "  -" in str(evaluate([p > 0.5 for p in maps], dataset))
    assert "nan" not in str(evaluate([p > 0.5 for p in maps], dataset)).lower()


def test_comparison_has_a_row_each(dataset, maps):
    first = evaluate(maps, dataset, name="a <b>")
    second = evaluate_second_observer(dataset)
    table = compare([first, second])
    lines = str(table).splitlines()
    assert len(lines) == 5  # header, rule, two rows, protocol
    assert lines[2].startswith("a <b> ")
    assert lines[2].endswith("0.500")
    assert lines[3].endswith("-")
    assert lines[4].endswith("; thresholds: by default.")
    html = table._repr_html_()
    assert "a &lt;b&gt;" in html
    assert html.count("<tr>") == 3
    assert "a &lt;b&gt;" in first._repr_html_()
    assert str(compare(first)) == str(compare([first]))
    json.dumps(table.to_dict(), allow_nan=False)

    frame = evaluate(maps, dataset, inside_fov=False, name="frame")
    marked = str(compare([first, frame]))
    assert "a <b> [1]" in marked
    assert "frame [2]" in marked
    assert "cannot be compared" in marked
    with pytest.raises(ValueError, match="at least one"):
        compare([])


def test_results_can_be_written(dataset, maps, tmp_path):
    found = evaluate([p > 0.5 for p in maps], dataset)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["pooled"]["AUC"] is None
    assert again["per_image"][0]["Dice"] == found.per_image[0]["Dice"]
    path = found.to_csv(tmp_path / "scores.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == found.names
    assert rows[0]["AUC"] == ""
    assert float(rows[0]["Dice"]) == found.per_image[0]["Dice"]


def test_undefined_scores_stay_out_of_the_mean():
    row = dict.fromkeys(SCORES, 0.5)
    rows = [{"name": "a", **row}, {"name": "b", **row, "Dice": math.nan}, {"name": "c", **row, "Dice": 0.7}]
    found = Evaluation("x", ["a", "b", "c"], 0.5, "given", True, row, rows)
    assert found.mean()["Dice"] == pytest.approx(0.6)
    assert found.std()["Dice"] == pytest.approx(0.1 * math.sqrt(2))
    alone = Evaluation("x", ["a"], 0.5, "given", True, row, rows[:1])
    assert math.isnan(alone.std()["Dice"])
    assert "-" in str(alone)


def test_bad_input_gets_one_clear_sentence(dataset, maps, folder):
    unlabelled = DRIVEDataset(folder / "images", None)
    with pytest.raises(DataError, match=r"no vessel labels.*load_drive\(\)"):
        evaluate(maps, unlabelled)
    with pytest.raises(DataError, match="the dataset is a PosixPath, no DRIVEDataset: give one"):
        evaluate(maps, folder)
    with pytest.raises(DataError, match="2 predictions for 3 photographs"):
        evaluate(maps[:2], dataset)
    with pytest.raises(DataError, match="image 21 is 48x64, the photograph 64x56"):
        evaluate([maps[1], maps[0], maps[2]], dataset)
    with pytest.raises(DataError, match="Image 22: probability must lie in 0..1, found nan"):
        evaluate([maps[0], maps[1] * np.nan, maps[2]], dataset)
    with pytest.raises(DataError, match="one kind"):
        evaluate([maps[0] > 0.5, maps[1], maps[2]], dataset)
    with pytest.raises(DataError, match="divide 0..255"):
        evaluate([(p * 255).astype(np.uint8) for p in maps], dataset)
    with pytest.raises(DataError, match="empty"):
        evaluate([], dataset.subset([]))
    with pytest.raises(ValueError, match="threshold must be in 0..1, got 128"):
        evaluate(maps, dataset, threshold=128)
    with pytest.raises(ValueError, match="tta"):
        evaluate(maps, dataset, tta=True)
    with pytest.raises(TypeError, match="a folder of predictions or a list of .* got float"):
        evaluate(0.5, dataset)
    with pytest.raises(DataError, match="unet.safetensors is no folder"):
        evaluate("unet.safetensors", dataset)


def test_an_evaluation_of_many_pixels_says_that_it_was_binned(dataset, maps, monkeypatch):
    exact = evaluate(maps, dataset, threshold=0.4)
    assert exact.binned is None and "bins" not in exact.protocol
    monkeypatch.setattr(streaming, "EXACT", 100)
    binned = evaluate(maps, dataset, threshold=0.4)
    assert binned.binned is not None and "AUC and AP from bins (AUC within" in binned.protocol
    assert binned.pooled == pytest.approx(exact.pooled, abs=1e-4)
    assert binned.per_image == exact.per_image
    assert binned.to_dict()["auc_within"] == binned.binned
    observer = evaluate_second_observer(dataset)
    assert math.isnan(observer.pooled["AUC"]) and observer.pooled["Dice"] > 0


def test_a_network_s_maps_are_not_kept(dataset, monkeypatch):
    class Constant(torch.nn.Module):
        def forward(self, image):
            return image[:, :1]

    alive = []
    original = evaluator.predict_each

    def counted(*args, **kwargs):
        for values in original(*args, **kwargs):
            alive[:] = [reference for reference in alive if reference() is not None]
            assert len(alive) <= 2, "maps of earlier photographs are still in memory"
            alive.append(weakref.ref(values))
            yield values
            del values

    monkeypatch.setattr(evaluator, "predict_each", counted)
    monkeypatch.setattr(streaming, "EXACT", 0)
    assert len(evaluate(Constant(), dataset).per_image) == len(dataset)


def test_predictions_in_a_folder_are_those_of_their_photographs(dataset, maps, tmp_path):
    for name, values in zip(dataset.names, maps, strict=True):
        Image.fromarray((values * 65535).astype(np.uint16)).save(tmp_path / f"{name}_probability.png")
        Image.fromarray((values >= 0.5).astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
    files = finished_predictions(tmp_path, dataset)
    assert isinstance(files, FinishedPredictions)
    assert files.finished and files.ranked
    assert len(files.files) == 2 * len(dataset)
    for read, values in zip(files.of(dataset.names), maps, strict=True):
        np.testing.assert_allclose(read.probability, values, atol=1 / 65535)
        np.testing.assert_array_equal(read.vessels, values >= 0.5)
    (tmp_path / f"{dataset.names[0]}.png").unlink()
    with pytest.raises(DataError, match=dataset.names[0]):
        finished_predictions(tmp_path, dataset)
    with pytest.raises(DataError, match="nowhere"):
        finished_predictions(tmp_path / "nowhere", dataset)
