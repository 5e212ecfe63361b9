"""Whole trainings by name: first weights, members, thresholds, and what is remembered of them."""

from dataclasses import replace

import pytest
import torch
from builders import write_drive

from drive_unet import PRESETS, UNet, files, fit, models, presets, train
from drive_unet.data import DRIVEDataset
from drive_unet.data.find import find_drive
from drive_unet.data.reading import Decoded
from drive_unet.errors import DataError
from drive_unet.inference import predict_all
from drive_unet.metrics import choose_threshold
from drive_unet.presets import Preset, fov_width, mean_weights
from drive_unet.training import history

TINY = Preset("for tests", network={"widths": (4, 6)}, steps=2, batch_size=2, patch_size=32)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return DRIVEDataset.from_pairs(find_drive(write_drive(tmp_path_factory.mktemp("DRIVE"))).training)


def quick(preset, photographs, **settings):
    return train(preset, photographs, progress=False, **settings)


def same(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


def test_thresholds_are_the_best_for_flips_and_for_one_pass(photographs):
    model, run = quick(TINY, photographs)
    vessels = [sample.vessels[0].numpy() > 0 for sample in photographs]
    fovs = [sample.fov[0].numpy() > 0 for sample in photographs]
    for tta in (True, False):
        best = choose_threshold(predict_all(model, photographs, tta=tta), vessels, fovs)
        assert model.threshold_for(tta) == best
    assert len(run.history) == 2 and not model.training


def test_held_out_photographs_choose_the_thresholds_and_are_remembered(photographs):
    names = photographs.names
    learned, held_out = photographs.subset(names[:-1]), photographs.subset(names[-1:])
    with_all, _ = quick(TINY, learned)
    with_held_out, _ = quick(TINY, learned, held_out=held_out)
    assert same(with_all, with_held_out)
    assert with_all.threshold != with_held_out.threshold
    record = with_held_out.notes["trained_on"]
    assert record["names"] == names[-1:] and record["before"]["names"] == names[:-1]


def test_members_have_one_seed_after_the_other_and_the_mean_of_their_weights_is_kept(photographs, tmp_path):
    both, run = quick(replace(TINY, members=2), photographs, seed=5, out=tmp_path)
    alone = [quick(TINY, photographs, seed=seed)[0] for seed in (5, 6)]
    weight = "bottleneck.0.weight"
    mean = (alone[0].state_dict()[weight] + alone[1].state_dict()[weight]) / 2
    assert not torch.allclose(alone[0].state_dict()[weight], mean)
    assert torch.allclose(both.state_dict()[weight], mean)
    assert same(UNet.from_pretrained(tmp_path), both)
    again, resumed = quick(replace(TINY, members=2), photographs, seed=5, out=tmp_path, resume=True)
    assert same(again, both) and resumed.history == run.history  # nothing was trained again


def test_the_mean_of_one_network_is_itself():
    torch.manual_seed(0)
    model = UNet(widths=(4, 6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in mean_weights([model]).state_dict().items())


def test_random_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = TINY.model(seed=3)
    torch.manual_seed(2)
    assert same(one, TINY.model(seed=3)) and not same(one, TINY.model(seed=4))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_start_from_painted_eyes_and_keep_only_their_record(name):
    model = PRESETS[name].model()
    assert list(model.notes) == ["trained_on"]
    assert same(model, UNet.from_pretrained(PRESETS["laptop"].start))


def test_the_scale_is_that_of_the_photographs(photographs):
    model, _ = quick(replace(TINY, steps=1), photographs)
    columns = [(sample.fov[0].numpy() > 0).any(axis=0).nonzero()[0] for sample in photographs]
    widths = sorted(found[-1] - found[0] + 1 for found in columns)
    width = model.preprocessing.fov_width
    assert width == fov_width(photographs) and widths[0] <= width <= widths[-1]


def test_an_unknown_preset_is_refused_with_the_names(photographs):
    with pytest.raises(ValueError, match="no preset 'lap'; choose from laptop, gpu, best"):
        train("lap", photographs)


def test_a_table_that_no_run_left_is_not_replaced(photographs, tmp_path):
    (tmp_path / "history.csv").write_text("my own notes")
    for resume in (True, False):
        with pytest.raises(ValueError, match="holds history.csv, but no last.pt .* overwrite=True"):
            quick(TINY, photographs, out=tmp_path, resume=resume)
    assert (tmp_path / "history.csv").read_text() == "my own notes"


def test_a_run_of_one_network_is_not_gone_on_with_by_several_nor_the_other_way_round(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "two", replace(TINY, members=2))
    for begun, other, held in ((TINY, "two", "last.pt"), ("two", TINY, "member-0/last.pt")):
        out = tmp_path / held[:4]
        quick(begun, photographs, out=out)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        named = "the preset 'two'" if other == "two" else "this preset"
        with pytest.raises(ValueError, match=f"holds {held} of a run of .*, and {named} is of .*overwrite"):
            quick(other, photographs, out=out, resume=True)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="holds member-0/last.pt of a run of several"):
        fit(UNet(widths=(4, 6)), photographs, out=tmp_path / "memb", resume=True, progress=False)


@pytest.mark.parametrize("members", [(1, 2), (2, 1), (3, 2)])
def test_an_overwritten_run_leaves_nothing_under_the_new_one(photographs, tmp_path, monkeypatch, members):
    before, after = (replace(TINY, members=count) for count in members)
    quick(before, photographs, out=tmp_path)
    history.draw_history(tmp_path)

    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(presets, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        quick(after, photographs, out=tmp_path, overwrite=True)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    quick(after, photographs, out=tmp_path, resume=True)


def test_a_start_without_a_record_is_told_and_taken(photographs, tmp_path):
    UNet(widths=(4, 6)).save_pretrained(tmp_path / "start.safetensors")
    with pytest.warns(UserWarning, match="start.safetensors does not tell what it was trained on"):
        model, _ = quick(TINY, photographs, start=tmp_path / "start.safetensors")
    assert model.notes["trained_on"]["names"] == photographs.names
    assert model.notes["trained_on"]["before"] is None


@pytest.mark.parametrize("name", ["history.csv", "best.safetensors"])
def test_a_disk_that_is_full_at_the_end_is_told(photographs, tmp_path, monkeypatch, name):
    write = files.write_atomically

    def full(path, *arguments, **options):
        if path == tmp_path / name:
            raise OSError(28, "No space left on device")
        write(path, *arguments, **options)

    for module in (history, models):
        monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(DataError, match="cannot be written \\(No space left on device\\): make room"):
        quick(TINY, photographs, out=tmp_path)
    monkeypatch.undo()
    assert quick(TINY, photographs, out=tmp_path, resume=True)[1].folder == tmp_path


def test_a_seed_out_of_range_is_refused(photographs):
    with pytest.raises(ValueError, match="the seed 9223372036854775808 is out of range"):
        quick(TINY, photographs, seed=2**63)


def test_a_run_is_not_gone_on_with_and_replaced_at_once(photographs, tmp_path):
    quick(TINY, photographs, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    both = {"out": tmp_path, "resume": True, "overwrite": True, "progress": False}
    for begin in (lambda: train(TINY, photographs, **both), lambda: fit(TINY.model(), photographs, **both)):
        with pytest.raises(ValueError, match="overwrite throws it away: give one of them"):
            begin()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_would_fail_at_the_end_or_not_be_heeded_is_refused_at_the_start(photographs, tmp_path):
    stored = photographs.stored(0)
    bare = DRIVEDataset.from_decoded(["1"], [Decoded(stored.image, None, stored.fov, None)])
    for data, given, error, words in (
        (
            photographs,
            {"held_out": bare},
            DataError,
            "the held-out set has 1 photographs and no vessel labels",
        ),
        (bare, {}, DataError, "the training set has 1 photographs and no vessel labels"),
        (photographs, {"steps": 0}, ValueError, "steps must be 1 or more, not 0"),
    ):
        with pytest.raises(error, match=words):
            quick(TINY, data, out=tmp_path, **given)
    assert not list(tmp_path.iterdir())
