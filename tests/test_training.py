"""The training loop: it learns, repeats itself, resumes, stops, and refuses what cannot work."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torchvision.transforms import v2

from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset, load_drive
from drive_unet.data.reading import Decoded
from drive_unet.errors import DataError
from drive_unet.inference import predict
from drive_unet.losses import bce_loss, combine, dice_loss
from drive_unet.metrics import confusion, streaming
from drive_unet.models import UNet
from drive_unet.preprocessing.prepare import Preprocessing
from drive_unet.training import best_threshold, fit, loop
from drive_unet.training.averages import moving_average
from drive_unet.training.descriptions import content_of
from drive_unet.training.watch import Watch

SMALL = {"batch_size": 2, "patch_size": 32, "validate_every": 2, "progress": False}


@pytest.fixture(scope="module")
def drive():
    return load_drive("embedded")


@pytest.fixture(scope="module")
def train(drive):
    return drive.training.subset(drive.training.names[:3])


@pytest.fixture(scope="module")
def validation(drive):
    return drive.validation.subset(drive.validation.names[:1])


def network():
    torch.manual_seed(0)
    return UNet(widths=(4, 8))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_and_the_network_beats_its_first_guess(drive):
    one = drive.training.subset(drive.training.names[:1])
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


def test_threads_change_the_rounding_alone(train):
    """With as many threads the history is the same bit by bit; with more it begins the same."""
    histories = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            run = fit(network(), train, steps=2, seed=1, **SMALL)
            histories.append([row["loss"] for row in run.history])
    finally:
        torch.set_num_threads(before)
    one, two, again = histories
    assert two == again
    assert one == pytest.approx(two, rel=1e-4)


def test_the_best_weights_and_their_threshold_are_kept(train, validation, tmp_path):
    model = network()
    run = fit(model, train, validation, steps=6, out=tmp_path, **SMALL)
    scored = {row["step"]: row["dice"] for row in run.history if "dice" in row}
    assert sorted(scored) == [2, 4, 6]
    assert run.best_dice == max(scored.values()) == scored[run.best_step]
    assert model.threshold_single == run.threshold
    assert model.threshold == best_threshold(model, validation, tta=True)[1], "chosen with flips, for flips"
    assert model.threshold_single == best_threshold(model, validation, tta=False)[1]
    loaded = UNet.from_pretrained(tmp_path)
    assert (loaded.threshold, loaded.threshold_single) == (model.threshold, model.threshold_single)
    assert loaded.notes["training"]["images"] == train.names
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not model.training


class Broken(Exception):
    pass


def fit_until_the_sixth_step(model, train, *arguments, **options):
    """Break off two steps after the last checkpoint but one, of `validate_every=2`."""
    cut, calls = training_transform(32), iter(range(1, 100))

    def transform(sample):
        if next(calls) > 2 * 5:
            raise Broken
        return cut(sample)

    transform.description = None  # as if there were none, so that the run goes on without it
    with pytest.raises(Broken):
        fit(model, train.subset(train.names, transform), *arguments, **SMALL | options)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("validated", [True, False])
def test_resuming_ends_where_an_unbroken_run_ends(train, validation, tmp_path, average, validated):
    data = (train, validation) if validated else (train,)
    options = {"steps": 6, "average": average, **SMALL}
    unbroken = network()
    whole = fit(unbroken, *data, **options)

    fit_until_the_sixth_step(network(), *data, out=tmp_path, **options)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"train.log", "last.pt", "previous.pt", *(["best.safetensors"] if validated else [])}
    if validated:  # the best so far, ready for use with its thresholds and its past
        best = UNet.from_pretrained(tmp_path)
        assert set(best.notes["trained_on"]["before"]["names"]) == set(train.names)
    for _ in range(2):  # the second time there is nothing left to do
        resumed = network()
        run = fit(resumed, *data, out=tmp_path, resume=True, **options)
        assert run.history == whole.history
        assert (run.best_dice, run.best_step) == (whole.best_dice, whole.best_step)
        assert same(resumed.state_dict(), unbroken.state_dict())
        assert same(UNet.from_pretrained(tmp_path).state_dict(), unbroken.state_dict())


def test_a_run_writes_its_checkpoint_with_and_without_validation(train, tmp_path):
    fit_until_the_sixth_step(network(), train, steps=6, out=tmp_path)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert [row["step"] for row in json.loads(saved["run"])["history"]] == [1, 2, 3, 4]


def test_a_run_that_ended_can_be_resumed_with_more_steps(train, tmp_path):
    """The further steps are a cycle of the learning rate of their own, and can be broken off themselves."""
    fit(network(), train, steps=2, out=tmp_path / "a", **SMALL)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    unbroken = network()
    whole = fit(unbroken, train, steps=8, out=tmp_path / "a", resume=True, **SMALL)
    assert [row["step"] for row in whole.history] == list(range(1, 9))
    fresh = fit(network(), train, steps=6, **SMALL)
    assert [row["lr"] for row in whole.history[2:]] == pytest.approx([row["lr"] for row in fresh.history])
    assert unbroken.notes["training"]["steps"] == 8

    fit_until_the_sixth_step(network(), train, steps=8, out=tmp_path / "b", resume=True)
    resumed = network()
    assert fit(resumed, train, steps=8, out=tmp_path / "b", resume=True, **SMALL).history == whole.history
    assert same(resumed.state_dict(), unbroken.state_dict())


def test_a_run_that_has_not_ended_goes_on_with_its_own_number_of_steps(train, tmp_path):
    fit_until_the_sixth_step(network(), train, steps=6, out=tmp_path)
    with pytest.raises(ValueError, match="steps was 6, is 8"):
        fit(network(), train, steps=8, out=tmp_path, resume=True, **SMALL)


def test_resume_refuses_other_settings_and_damage(drive, train, tmp_path):
    fit(network(), train, steps=2, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="belongs to another run \\(steps was 2, is 1\\)"):
        fit(network(), train, steps=1, out=tmp_path, resume=True, **SMALL)
    with pytest.raises(ValueError, match="belongs to another run \\(network was"):
        fit(UNet(widths=(4, 4)), train, steps=2, out=tmp_path, resume=True, **SMALL)
    other = {
        "loss was 1 bce \\+ 0.5 dice, is 1 bce": {"loss": combine(bce=1)},
        "patch size was 32, is 48": {"patch_size": 48},
        "weight decay was 0.01, is 0.1": {"weight_decay": 0.1},
        "learning rate was 0.01, is 0.02": {"lr": 0.02},
        "validation set was None, is": {"validation": drive.validation.subset([0])},
    }
    for words, changed in other.items():
        with pytest.raises(ValueError, match=words):
            fit(network(), train, **{"steps": 2, "out": tmp_path, "resume": True, **SMALL, **changed})
    turned = train.subset(train.names, v2.RandomCrop(32))
    with pytest.raises(ValueError, match="transform was None, is RandomCrop"):
        fit(network(), turned, steps=2, out=tmp_path, resume=True, **SMALL)
    shifted = train.subset(train.names[::-1])
    with pytest.raises(ValueError, match="names of the photographs was .*; pixels of the photographs was"):
        fit(network(), shifted, steps=2, out=tmp_path, resume=True, **SMALL)
    started = network()
    started.notes["trained_on"] = {"names": ["1"], "fingerprints": ["0" * 16], "before": None}
    with pytest.raises(ValueError, match="weights that it started from was"):
        fit(started, train, steps=2, out=tmp_path, resume=True, **SMALL)
    (tmp_path / "last.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="last.pt cannot be read .*: replace the run with overwrite"):
        fit(network(), train, steps=2, out=tmp_path, resume=True, **SMALL)
    with pytest.raises(ValueError, match="resume needs out"):
        fit(network(), train, steps=2, resume=True, **SMALL)


def test_resume_refuses_other_labels_scale_and_parameters_of_a_loss(train, validation, tmp_path):
    loss = functools.partial(dice_loss, smooth=1.0)
    settings = {"steps": 2, "loss": loss, "out": tmp_path, **SMALL}
    fit(network(), train, validation, **settings)

    def relabelled(photographs):
        parts = [(sample.image, 1 - sample.vessels, sample.fov) for sample in photographs]
        decoded = [Decoded((image * 255).round().byte(), *masks, None) for image, *masks in parts]
        return DRIVEDataset.from_decoded(photographs.names, decoded)

    for words, changed in {
        "\\(vessel labels was": {"train": relabelled(train)},
        "\\(vessel labels of the validation set was": {"validation": relabelled(validation)},
        "\\(loss was .*dice_loss\\(smooth=1.0\\), is .*dice_loss\\(smooth=9.0\\)\\)": {
            "loss": functools.partial(dice_loss, smooth=9.0)
        },
        "\\(steps between validations was 2, is 1\\)": {"validate_every": 1},
    }.items():
        data = {"train": train, "validation": validation}
        with pytest.raises(ValueError, match=words):
            fit(network(), **data | settings | changed, resume=True)
    rescaled = network()
    rescaled.preprocessing = Preprocessing(fov_width=300)
    with pytest.raises(ValueError, match="preprocessing was {'fov_width': 540.*is {'fov_width': 300"):
        fit(rescaled, train, validation, **settings, resume=True)


def test_an_average_follows_the_weights_and_forgets_their_start():
    model = torch.nn.BatchNorm1d(1)  # float weights and statistics, and an integer count
    average, expected = moving_average(model, 0.2), 3.0  # the first weights that it is shown
    for step, value in enumerate([3.0, -2.0, 5.0], start=1):
        model.weight.data.fill_(value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        if step > 1:
            keep = min(0.2, [2 / 11, 3 / 12][step - 2])
            expected = keep * expected + (1 - keep) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked.item() == 3
    assert model.weight.item() == 5.0


@pytest.mark.parametrize("validated", [True, False])
def test_the_averaged_weights_are_validated_and_kept(train, validation, tmp_path, validated):
    model, passed = network(), []

    def loss(logits, vessels, fov):
        passed.append({name: value.clone() for name, value in model.state_dict().items()})
        return bce_loss(logits, vessels, fov)

    options = {"steps": 4, "average": 0.9, "loss": loss, "out": tmp_path, **SMALL, "validate_every": 4}
    run = fit(model, train, validation if validated else None, **options)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert same(
        model.state_dict(),
        {k.removeprefix("module."): v for k, v in saved["average"].items() if k != "n_averaged"},
    )
    assert same(model.state_dict(), UNet.from_pretrained(tmp_path).state_dict())
    assert run.best_step == 4

    name = "head.weight"  # the loss saw it before each step, and the checkpoint after the last one
    _, expected, *after = [weights[name] for weights in passed] + [saved["model"][name]]
    for step, value in enumerate(after, start=1):
        keep = (1 + step) / (10 + step)
        expected = keep * expected + (1 - keep) * value
    torch.testing.assert_close(model.state_dict()[name], expected)
    assert not torch.equal(saved["model"][name], expected)
    if validated:
        sample = validation[0]
        found = [predict(model, sample) >= run.threshold]
        truth, fov = [sample.vessels[0].bool().numpy()], [sample.fov[0].bool().numpy()]
        assert confusion(found, truth, fov).dice == run.best_dice


@pytest.mark.parametrize("average", [1.0, -0.1, float("nan")])
def test_a_decay_that_is_none_is_refused(train, average):
    with pytest.raises(ValueError, match="average is the decay of a moving average, 0 to below 1, not "):
        fit(network(), train, steps=2, average=average, **SMALL)


def test_a_run_is_not_replaced_unless_that_is_said(train, validation, tmp_path):
    fit(network(), train, validation, steps=2, out=tmp_path, **SMALL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="holds last.pt of an earlier run: go on with resume=True"):
        fit(network(), train, validation, steps=2, seed=1, out=tmp_path, **SMALL)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    fit(network(), train, validation, steps=2, seed=1, out=tmp_path, overwrite=True, **SMALL)
    assert (tmp_path / "last.pt").read_bytes() != before["last.pt"]


def test_the_caller_s_accelerator_is_as_it_was(train):
    AcceleratorState._reset_state(reset_partial_state=False)
    own = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=3)
    fit(network(), train, steps=1, mixed_precision="no", **SMALL)
    assert own.mixed_precision == "bf16" and own.state.mixed_precision == "bf16"
    assert own.gradient_accumulation_steps == 3
    AcceleratorState._reset_state(reset_partial_state=False)


def test_an_interrupted_run_leaves_the_network_its_own_forward(train):
    def interrupted(logits, vessels, fov):
        raise KeyboardInterrupt

    model = network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, train, steps=2, loss=interrupted, mixed_precision="bf16", **SMALL)
    assert model.forward.__func__ is UNet.forward


def test_a_second_run_may_have_another_precision(train):
    for precision in ("no", "bf16", "no"):
        run = fit(network(), train, steps=1, mixed_precision=precision, **SMALL)
        assert run.history


def test_patience_stops_early(train, validation):
    run = fit(network(), train, validation, steps=40, lr=1e-9, patience=2, **SMALL)
    assert run.stopped_early
    assert run.history[-1]["step"] < 40
    assert "stopped early" in str(run)


def test_bad_data_and_budgets_are_refused(drive, train):
    image, _, fov, second = drive.test._photographs[0].read()
    bare = DRIVEDataset.from_decoded(["1"], [Decoded(image, None, fov, second)])
    with pytest.raises(DataError, match="the training set has 1 photographs and no vessel labels"):
        fit(network(), bare, steps=1)
    with pytest.raises(DataError, match=f"photographs {train.names[0]} are in both"):
        fit(network(), train, train.subset(train.names[:1]), steps=1)
    with pytest.raises(ValueError, match="must be 1 or more"):
        fit(network(), train, steps=0)
    for patience in (0, -1):
        with pytest.raises(
            ValueError, match=f"patience must be 1 validation or more, or None, not {patience}"
        ):
            fit(network(), train, steps=1, patience=patience)
    with pytest.raises(DataError, match="the training set is a Drive, no DRIVEDataset: .* drive.training"):
        fit(network(), drive)
    with pytest.raises(DataError, match="the training set is a NoneType, no DRIVEDataset: give one"):
        fit(network(), None)
    with pytest.raises(DataError, match="the validation set is a list, no DRIVEDataset: give one"):
        fit(network(), train, [train[0]], steps=1)


@pytest.mark.parametrize("given", [{"lr": -1}, {"lr": float("nan")}, {"weight_decay": -1}, {"patch_size": 0}])
def test_numbers_out_of_range_are_refused(train, given):
    with pytest.raises(ValueError, match=rf"{list(given)[0]}.* must be "):
        fit(network(), train, steps=1, **SMALL | given)


LOSSES = {
    "a pixel": (
        lambda logits, vessels, fov: (logits - vessels) ** 2,
        "tensor .2, 1, 32, 32.*: take its mean",
    ),
    "none": (lambda logits, vessels, fov: None, "gives NoneType, not one number .*: return"),
    "item": (lambda logits, vessels, fov: bce_loss(logits, vessels).item(), "gives float, .* without item"),
    "pair": (lambda logits, vessels, fov: (bce_loss(logits, vessels), 1), "gives tuple, not one number"),
    "integer": (
        lambda logits, vessels, fov: torch.tensor(1),
        "tensor of torch.int64, .*: compute it in floats",
    ),
    "detached": (lambda logits, vessels, fov: logits.detach().mean(), "without a gradient, .*: leave detach"),
    "two": (
        lambda logits, vessels: logits.mean(),
        r"takes \(logits, vessels\), not .*: wrap it, as in lambda",
    ),
    "module": (torch.nn.BCEWithLogitsLoss(), r"takes \(input: .*, target: .*\).*, not .*: wrap it"),
    "class": (torch.nn.BCEWithLogitsLoss, "the class BCEWithLogitsLoss is no loss: give a function"),
    "name": ("bce", "'bce' is no loss: give a function"),
    "bytes": (
        lambda logits, vessels, fov: torch.nn.BCELoss()(logits.sigmoid(), vessels),
        r"fails on logits \(2, 1, 32, 32\) of torch.float32 and .* torch.uint8 \(Found dtype Byte .*\): ",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_by_which_nothing_is_learned_is_refused_in_words(train, name):
    loss, words = LOSSES[name]
    with pytest.raises(DataError, match=words) as caught:
        fit(network(), train, steps=1, loss=loss, **SMALL)
    assert "\n" not in str(caught.value)


class Odd(UNet):
    """A network that makes something else of its logits."""

    def __init__(self, change):
        super().__init__(widths=(4, 8))
        self.change = change

    def network(self, x):
        return self.change(super().network(x))


def unfit(x):
    raise RuntimeError("Sizes of tensors must match\nexcept in dimension 1.")


NETWORKS = {
    "pair": (
        lambda: Odd(lambda logits: (logits, logits)),
        "makes tuple of images .*, and returns them alone",
    ),
    "none": (lambda: Odd(lambda logits: None), "makes NoneType of images"),
    "classes": (lambda: UNet(widths=(4, 8), num_classes=2), r"makes \(2, 2, 32, 32\) of images"),
    "half": (lambda: Odd(lambda logits: logits[..., ::2, ::2]), r"makes \(2, 1, 16, 16\) of images"),
    "integers": (lambda: Odd(lambda logits: logits.long()), "of torch.int64 of images"),
    "detached": (lambda: Odd(lambda logits: logits.detach()), "logits have no gradient, .*: leave detach"),
    "channels": (
        lambda: UNet(widths=(4, 8), in_channels=1),
        r"takes \(B, 1, H, W\).*: build it with in_channels=3",
    ),
    "double": (
        lambda: network().double(),
        r"cannot take images .*: its weights are of torch.float64, so give",
    ),
    "sizes": (
        lambda: Odd(unfit),
        r"\(Sizes of tensors must match except in dimension 1\): let it take any size",
    ),
    "frozen": (lambda: network().requires_grad_(False), "no weight of the network is to be trained"),
    "foreign": (
        lambda: torch.nn.Conv2d(3, 1, 1),
        "fit trains a SegmentationModel, not a Conv2d: give it UNet",
    ),
    "class": (lambda: UNet, "not the class UNet: give it UNet"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_cannot_learn_is_refused_in_words(train, name):
    make, words = NETWORKS[name]
    with pytest.raises(DataError, match=words) as caught:
        fit(make(), train, steps=1, **SMALL)
    assert "\n" not in str(caught.value)


def middle(part):
    return part[..., 260:292, 260:292]


PATCHES = {
    "nothing": (lambda sample: None, "a transform returned NoneType, no Sample: let it return one"),
    "pair": (lambda sample: (sample.image, sample.vessels), "a transform returned tuple, no Sample"),
    "array": (
        lambda sample: sample._replace(vessels=sample.vessels.numpy()),
        "made ndarray of the sample's vessels",
    ),
    "unlabelled": (
        lambda sample: sample._replace(vessels=None),
        "patches of step 1 have no labels: the transform",
    ),
    "label": (
        lambda sample: sample._replace(vessels=sample.vessels[..., :9]),
        r"images \(2, 3, 32, 32\), labels \(2, 1, 32, 9\) and .*, empty or not of one size: ",
    ),
    "fov": (
        lambda sample: sample._replace(fov=sample.fov[..., :9]),
        r"fields of view \(2, 1, 32, 9\), empty or not of one size",
    ),
    "empty": (lambda sample: sample._replace(image=sample.image[..., :0]), "empty or not of one size"),
    "double": (
        lambda sample: sample._replace(image=sample.image.double() / 255),
        "images .* of torch.float64",
    ),
    "flat": (
        lambda sample: sample._replace(vessels=sample.vessels[0]),
        r"the labels of step 1 are \(2, 32, 32\), not \(2, 1, 32, 32\)",
    ),
}


@pytest.mark.parametrize("name", PATCHES)
def test_what_a_transform_leaves_unfit_is_told(train, name):
    change, words = PATCHES[name]

    def transform(sample):
        cut = {part: middle(getattr(sample, part)) for part in ("image", "vessels", "fov")}
        return change(sample._replace(**cut))

    with pytest.raises(DataError, match=words):
        fit(network(), train.subset(train.names, transform), steps=1, **SMALL)


def test_integers_of_numpy_are_taken(train, tmp_path):
    given = {"steps": np.int64(2), "seed": np.int64(3), **SMALL, "validate_every": np.int32(2)}
    own, usual = network(), network()
    run = fit(own, train, out=tmp_path, **given)
    assert run.history == fit(usual, train, steps=2, seed=3, **SMALL).history
    assert run.history == fit(network(), train, out=tmp_path, resume=True, **given).history


def test_an_infinite_loss_ends_the_run_in_a_sentence(train):
    def broken(logits, vessels, fov):
        return logits.sum() * float("nan")

    with pytest.raises(
        FloatingPointError, match="the loss is nan at step 1, first in the loss itself.*try a lower lr"
    ):
        fit(network(), train, steps=3, loss=broken, **SMALL)


def test_a_transform_that_gives_no_numbers_is_not_called_a_learning_rate(train):
    cut = training_transform(32)

    def spoils(sample):
        sample = cut(sample)
        return sample._replace(image=sample.image.float() * float("nan"))

    words = "first in the photographs themselves, .*; look at what the transform makes of them$"
    with pytest.raises(FloatingPointError, match=words):
        fit(network(), train.subset(train.names, spoils), steps=1, **SMALL)


def test_after_a_loss_that_diverged_the_rate_is_too_high_before_all():
    watch = Watch(network(), 100.0, lambda step: [], SimpleNamespace(is_main_process=True))
    logits = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert watch.causes(logits)[0] == "too few steps, or a learning rate that is too low for them"
    watch.progress(0.5, 20)
    with pytest.warns(UserWarning, match="diverges: .* the learning rate 100 is too high"):
        watch.progress(5.0, 21)
    causes = watch.causes(logits)
    assert causes[0] == "a learning rate that is too high, 100: the loss diverged"
    assert len(causes) == 5 and not any("too low" in cause for cause in causes)


def test_a_run_prints_shows_and_plots_itself(train, validation):
    run = fit(network(), train, validation, steps=4, **SMALL)
    assert str(run).startswith("4 steps in ")
    assert f"{run.best_dice:.4f}" in str(run) and str(run) in run._repr_html_()
    assert run.plot().axes
    json.dumps(run.history)


def test_thresholds_of_many_pixels_come_from_bins(validation, monkeypatch):
    model = network()
    exact = best_threshold(model, validation, tta=False)
    monkeypatch.setattr(streaming, "EXACT", 100)
    dice, threshold = best_threshold(model, validation, tta=False)
    assert dice == pytest.approx(exact[0], abs=1e-4) and threshold == pytest.approx(exact[1], abs=1e-3)


# ------------------------------------------------------------------------- what one run tells from another


def weighted(weight):
    def loss(logits, vessels, fov):
        return weight * bce_loss(logits, vessels, fov)

    return loss


class Number(float):
    """One, that holds what Python can neither copy nor compare."""

    def __new__(cls):
        number = super().__new__(cls, 1.0)
        number.lock = threading.Lock()
        return number


class Scaled:
    """A transform of one's own, an object with a number and a list."""

    def __init__(self, number):
        self.parts, self.cut = [self, {"number": number}], training_transform(32)

    def __call__(self, sample):
        return self.cut(sample)


def test_losses_and_transforms_are_told_by_code_and_values():
    functions = [
        *(lambda a, b, c: bce_loss(a, b, c), lambda a, b, c: 5 * bce_loss(a, b, c)),
        *(lambda a, b, c: bce_loss(a, c, b), lambda a, b, c: dice_loss(a, b, c)),
        *(weighted(1.0), weighted(9.0), functools.partial(weighted(1.0)), functools.lru_cache(weighted(2.0))),
        *(Scaled(1), Scaled(2), Scaled(1).__call__, v2.Lambda(weighted(1.0)), v2.Lambda(weighted(2.0))),
        *(torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(float(weight))) for weight in (1, 2)),
    ]
    contents = [content_of(function) for function in functions]
    assert all(re.fullmatch("[0-9a-f]{16}", content) for content in contents)
    assert len(set(contents)) == len(contents)
    assert content_of(weighted(9.0)) == content_of(weighted(9.0)) and content_of(Scaled(2)) == contents[9]
    assert content_of(combine(bce=1)) is None and content_of(None) is None
    assert content_of(weighted(Number())).startswith("beyond comparison (TypeError: cannot pickle")


def test_functions_reached_through_modules_of_ones_own_are_compared():
    def content(factor, unused=0):
        inner, outer = ModuleType("own_package.inner"), ModuleType("own_package")
        exec(f"def scale(x): return {factor} * x\ndef unused(x): return {unused}", vars(inner))
        outer.inner, outer.package = inner, outer
        names = {"__name__": "own_package.losses", "own_package": outer, "torch": torch}
        exec("def loss(a, b, c): return own_package.inner.scale(torch.mean(a))", names)
        return content_of(names["loss"])

    assert content(2) == content(2, unused=1) != content(3)


CONTENTS = """
import functools, numpy as np, torch
from drive_unet.losses import bce_loss
from drive_unet.training.descriptions import content_of
from drive_unet.training.watch import Watch

NAMES = {"a", "b", "c", ("d", 1), ("e", 2)}

class Own:
    def __init__(self):
        self.names, self.numbers, self.random = NAMES, np.arange(3), np.random.default_rng(0)

    @property
    def words(self):
        return {"x", "y", "z"}

def loss(logits, vessels, fov):
    return bce_loss(logits, vessels, fov) if "a" in NAMES and logits not in {"p", "q", "r"} else Own

print(content_of(loss), content_of(Own()))
"""


def test_what_a_loss_holds_is_told_alike_by_every_process():
    def told(seed):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        return subprocess.check_output([sys.executable, "-c", CONTENTS], text=True, env=environment)

    first = told("1")
    assert re.fullmatch("[0-9a-f]{16} [0-9a-f]{16}\n", first) and told("2") == first


def test_resume_refuses_whatever_decides_a_run(train, validation, tmp_path):
    settings = {"steps": 2, "loss": weighted(1.0), "out": tmp_path, "mixed_precision": "no", **SMALL}
    data = {"train": train.subset(train.names, Scaled(1)), "validation": validation}
    fit(network(), **data, **settings)

    def elsewhere(photographs):
        stored = [photographs.stored(index) for index in range(len(photographs))]
        rows = (torch.arange(part.fov.shape[1])[:, None] > 80 for part in stored)
        cut = [part._replace(fov=part.fov * below) for part, below in zip(stored, rows, strict=True)]
        return DRIVEDataset.from_decoded(photographs.names, cut, photographs.transform)

    for words, changed in {
        "\\(code and values of the loss was .*would vouch for\\)": {"loss": weighted(9.0)},
        "code and values of the loss was .*, is beyond comparison": {"loss": weighted(Number())},
        "code and values of the transform was": {"train": train.subset(train.names, Scaled(2))},
        "\\(fields of view was": {"train": elsewhere(data["train"])},
        "\\(fields of view of the validation set was": {"validation": elsewhere(validation)},
        "\\(mixed precision was no, is bf16\\)": {"mixed_precision": "bf16"},
        "\\(patience was None, is 3\\)": {"patience": 3},
    }.items():
        with pytest.raises(ValueError, match=words):
            fit(network(), **data | settings | changed, resume=True)
    frozen = network()
    frozen.head.requires_grad_(False)
    with pytest.raises(ValueError, match="\\(frozen weights was \\[\\], is \\['head.weight', 'head.bias'\\]"):
        fit(frozen, **data, **settings, resume=True)
    fit(network(), **data, **settings | {"loss": weighted(1.0)}, resume=True)


def test_what_cannot_be_told_is_not_gone_on_with(train, tmp_path):
    settings = {"steps": 2, "loss": weighted(Number()), "out": tmp_path, **SMALL}
    fit(network(), train, **settings)
    with pytest.raises(ValueError, match="the loss was beyond comparison .*, is beyond comparison"):
        fit(network(), train, **settings, resume=True)


def test_weights_and_tables_that_no_run_left_are_not_replaced(train, tmp_path):
    network().save_pretrained(tmp_path / "best.safetensors")
    before = (tmp_path / "best.safetensors").read_bytes()
    for resume in (True, False):
        with pytest.raises(ValueError, match="holds best.safetensors, but no last.pt .* overwrite=True"):
            fit(network(), train, steps=2, out=tmp_path, resume=resume, **SMALL)
    for place in ("best.safetensors", "best.safetensors/run"):
        with pytest.raises(ValueError, match="best.safetensors is a file, where .*: name another folder$"):
            fit(network(), train, steps=2, out=tmp_path / place, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert (tmp_path / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 1.5])
def test_a_seed_out_of_range_is_refused(train, seed):
    with pytest.raises(ValueError, match=f"the seed {seed} is out of range: give one from 0 to 4294967295"):
        fit(network(), train, steps=2, seed=seed, **SMALL)


def test_an_interruption_of_a_validation_leaves_run_and_model_that_agree(train, validation, monkeypatch):
    def interrupted(*arguments, tta, **options):
        if tta:
            raise KeyboardInterrupt
        return 0.4, 0.3

    monkeypatch.setattr(loop, "best_threshold", interrupted)
    model = network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, train, validation, steps=2, **SMALL)
    assert model.threshold_single == 0.5 and "0.300" not in model.notes["training"]["run"]
