"""The script that makes the packaged weights: what it learns from, writes and says, in miniature."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import train_weights
from builders import write_drive
from test_layouts import hrf

from drive_unet import UNet
from drive_unet.augmentation import training_transform
from drive_unet.preprocessing import Preprocessing


@pytest.fixture
def miniature(monkeypatch):
    """One step, tiny networks and patches, one painted eye each; photographs keep their own pixels."""
    small = {"widths": (2, 3), "stem": 1}
    for name, recipe in train_weights.RECIPES.items():
        small_recipe = replace(recipe, steps=1, transform=training_transform(32), network=small)
        monkeypatch.setitem(train_weights.RECIPES, name, small_recipe)
    monkeypatch.setattr(train_weights, "BESIDE", range(1000, 1001))
    monkeypatch.setattr(train_weights, "CHOOSING", range(150, 151))
    monkeypatch.setattr(train_weights, "SIZES", ((64, 62), (96, 92)))
    monkeypatch.setattr(Preprocessing, "scale", lambda *_: 1.0)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train_weights.py", *map(str, words)])
    train_weights.main()


def test_default_learns_from_both_cameras_after_one_of_them_and_painted_eyes(
    miniature, monkeypatch, tmp_path, capsys
):
    drive, second = write_drive(tmp_path / "drive"), hrf(tmp_path / "hrf")
    runs, out = tmp_path / "runs", tmp_path / "out"
    words = ("default", "--drive", drive, "--hrf", second, "--runs", runs, "--out", out)
    run(monkeypatch, *words, "--without", 1)
    shown = capsys.readouterr().out
    assert "DRIVE, left out, one pass" in shown and "HRF, left out, four flips" in shown
    assert not out.exists(), "weights that have not learned from everything are not packaged"
    part = UNet.from_pretrained(runs / "default-without-1.safetensors")
    start = (runs / "synthetic.safetensors").read_bytes()

    run(monkeypatch, *words)
    assert (runs / "synthetic.safetensors").read_bytes() == start, "first weights that are there are taken"
    model = UNet.from_pretrained(out / "default.safetensors")
    assert model.preprocessing == Preprocessing(finest=1080)
    assert {"data", "threshold", "training", "terms", "limits", "versions"} <= set(model.notes)
    record = model.notes["trained_on"]
    assert record["source"] == "DRIVE and HRF"
    learned, before = part.notes["trained_on"], record["before"]
    left_out = set(record["fingerprints"]) - set(learned["fingerprints"])
    assert left_out and not left_out & set(learned["before"]["fingerprints"]), (
        "nor did its first weights see them"
    )
    first = UNet.from_pretrained(runs / "synthetic.safetensors").notes["trained_on"]
    assert before["source"] == "DRIVE" and left_out & set(before["fingerprints"])
    assert before["before"]["fingerprints"] == first["fingerprints"]
    assert (
        "DRIVE is for research and education" in model.notes["terms"] and "CC BY 4.0" in model.notes["terms"]
    )


def test_open_learns_from_one_camera_without_the_terms_of_the_other(miniature, monkeypatch, tmp_path):
    run(monkeypatch, "open", "--hrf", hrf(tmp_path / "hrf"), "--runs", tmp_path / "runs", "--out", tmp_path)
    model = UNet.from_pretrained(tmp_path / "open.safetensors")
    record = model.notes["trained_on"]
    assert record["source"] == "HRF" and record["before"]["source"] == "painted photographs"
    assert "DRIVE" not in model.notes["terms"] + model.notes["data"] and "CC BY 4.0" in model.notes["terms"]


@pytest.mark.parametrize("name", ["synthetic", "synthetic-fast"])
def test_weights_from_painted_eyes_are_free_of_terms(miniature, monkeypatch, tmp_path, name):
    run(monkeypatch, name, "--runs", tmp_path / "runs", "--out", tmp_path)
    model = UNet.from_pretrained(tmp_path / f"{name}.safetensors")
    assert model.notes["terms"].startswith("MIT") and "no genuine one" in model.notes["data"]
    assert ("at 2 sizes" in model.notes["threshold"]) == (name == "synthetic")


def test_a_missing_copy_is_asked_for(miniature, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="name its folder with --drive"):
        run(monkeypatch, "fast", "--runs", tmp_path)
