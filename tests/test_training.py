"""The training loop: it learns, repeats itself, resumes, stops, and refuses what cannot work."""

import json

import pytest
import torch

from drive_unet.data import load_drive
from drive_unet.errors import DataError
from drive_unet.inference import predict
from drive_unet.models import UNet
from drive_unet.training import fit

SMALL = {"batch_size": 2, "patch_size": 32, "validate_every": 2, "progress": False}


@pytest.fixture(scope="module")
def drive():
    return load_drive("embedded")


@pytest.fixture(scope="module")
def train(drive):
    return drive.train.subset(drive.train.names[:3])


@pytest.fixture(scope="module")
def validation(drive):
    return drive.validation.subset(drive.validation.names[:1])


def network():
    torch.manual_seed(0)
    return UNet(widths=(4, 8))


def test_the_loss_falls_and_the_network_beats_its_first_guess(drive):
    one = drive.train.subset(drive.train.names[:1])
    model = network()
    run = fit(model, one, steps=60, batch_size=4, patch_size=96, progress=False)
    losses = [row["loss"] for row in run.history]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    probability, vessels = predict(model, one[0]), one[0].vessels[0].bool().numpy()
    assert probability[vessels].mean() > probability[~vessels].mean() + 0.1


def test_the_same_seed_gives_the_same_weights_and_the_callers_generator_stays(train):
    results = []
    for seed in (1, 1, 2):
        model = network()
        before = torch.get_rng_state()
        fit(model, train, steps=3, seed=seed, **SMALL)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(torch.cat([value.flatten() for value in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_best_weights_and_their_threshold_are_kept(train, validation, tmp_path):
    model = network()
    run = fit(model, train, validation, steps=6, out=tmp_path, **SMALL)
    scored = {row["step"]: row["dice"] for row in run.history if "dice" in row}
    assert sorted(scored) == [2, 4, 6]
    assert run.best_dice == max(scored.values()) == scored[run.best_step]
    assert model.threshold == run.threshold
    loaded = UNet.from_pretrained(tmp_path)
    assert loaded.threshold == run.threshold
    assert loaded.notes["training"]["images"] == train.names
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not model.training


def test_resuming_ends_where_an_unbroken_run_ends(train, validation, tmp_path):
    unbroken, broken = network(), network()
    whole = fit(unbroken, train, validation, steps=6, **SMALL)

    class Broken(Exception):
        pass

    calls = 0

    def interrupted(sample):
        nonlocal calls
        calls += 1
        if calls > 2 * 5:  # in the sixth batch, two steps after the last checkpoint but one
            raise Broken
        return transform(sample)

    from drive_unet.augmentation import training_transform

    transform = training_transform(32)
    with pytest.raises(Broken):
        fit(
            broken,
            train.subset(train.names, transform=interrupted),
            validation,
            steps=6,
            out=tmp_path,
            **SMALL,
        )
    resumed = fit(network(), train, validation, steps=6, out=tmp_path, resume=True, **SMALL)
    assert [row["step"] for row in resumed.history] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert resumed.best_dice == whole.best_dice
    again = fit(network(), train, validation, steps=6, out=tmp_path, resume=True, **SMALL)
    assert again.history == resumed.history


def test_resume_refuses_other_settings_and_damage(train, tmp_path):
    fit(network(), train, steps=2, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="belongs to another run \\(steps was 2\\)"):
        fit(network(), train, steps=3, out=tmp_path, resume=True, **SMALL)
    with pytest.raises(ValueError, match="belongs to another run \\(arguments was"):
        fit(UNet(widths=(4, 4)), train, steps=2, out=tmp_path, resume=True, **SMALL)
    (tmp_path / "last.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="last.pt cannot be read .* delete it or train without resume"):
        fit(network(), train, steps=2, out=tmp_path, resume=True, **SMALL)
    with pytest.raises(ValueError, match="resume needs out"):
        fit(network(), train, steps=2, resume=True, **SMALL)


def test_patience_stops_early(train, validation):
    run = fit(network(), train, validation, steps=40, lr=1e-9, patience=2, **SMALL)
    assert run.stopped_early
    assert run.history[-1]["step"] < 40
    assert "stopped early" in str(run)


def test_bad_data_and_budgets_are_refused(drive, train):
    bare = drive.test.subset(drive.test.names[:1])
    bare._photographs = [bare._photographs[0]._replace(vessels=None)]
    with pytest.raises(DataError, match="the training set has 1 photographs and no vessel labels"):
        fit(network(), bare, steps=1)
    with pytest.raises(DataError, match=f"photographs {train.names[0]} are in both"):
        fit(network(), train, train.subset(train.names[:1]), steps=1)
    with pytest.raises(ValueError, match="must be 1 or more"):
        fit(network(), train, steps=0)


def test_an_infinite_loss_ends_the_run_in_a_sentence(train):
    def broken(logits, vessels, fov):
        return logits.sum() * float("nan")

    with pytest.raises(FloatingPointError, match="the loss is nan at step 1; try a lower lr"):
        fit(network(), train, steps=3, loss=broken, **SMALL)


def test_a_run_prints_shows_and_plots_itself(train, validation):
    run = fit(network(), train, validation, steps=4, **SMALL)
    assert str(run).startswith("4 steps in ")
    assert f"{run.best_dice:.4f}" in str(run) and str(run) in run._repr_html_()
    assert run.plot().axes
    json.dumps(run.history)
