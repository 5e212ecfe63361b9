"""The training doctor: what goes wrong is told early in words, and the page names causes."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from builders import disc, photograph, tree
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

import drive_unet
from drive_unet.data import DRIVEDataset
from drive_unet.data.reading import Decoded
from drive_unet.doctor import diagnose
from drive_unet.errors import DataError
from drive_unet.losses import bce_loss
from drive_unet.models import ArticleNet, SegmentationModel, UNet
from drive_unet.preprocessing import Preprocessing
from drive_unet.training import fit

SIZE = (96, 100)
SMALL = {"batch_size": 2, "patch_size": 32, "progress": False}
BROAD = np.ones((5, 5))


def vessels(number):
    from scipy import ndimage

    return ndimage.binary_dilation(tree(number, SIZE), BROAD) & disc(SIZE)


def decoded(number, label=None):
    dark = vessels(number)
    image = np.where(dark[..., None], photograph(number, SIZE) // 2, photograph(number, SIZE))
    label = dark if label is None else label
    return Decoded(
        torch.from_numpy(image.transpose(2, 0, 1).copy()),
        torch.from_numpy(label.astype(np.uint8)[None]),
        torch.from_numpy(disc(SIZE).astype(np.uint8)[None]),
        None,
    )


@pytest.fixture(scope="module")
def eyes():
    return DRIVEDataset.from_decoded([f"{n}" for n in range(4)], [decoded(n) for n in range(4)])


def labelled(label):
    return DRIVEDataset.from_decoded([f"{n}" for n in range(3)], [decoded(n, label) for n in range(3)])


def network(kind=UNet, **arguments):
    torch.manual_seed(0)
    model = kind(**arguments or ({"widths": (8, 16)} if kind is UNet else {}))
    model.preprocessing = Preprocessing(tolerance=100)
    return model


@pytest.fixture(scope="module")
def learned(eyes):
    model = network()
    fit(model, eyes, steps=200, lr=1e-2, batch_size=2, patch_size=48, progress=False)
    return model


def codes(page):
    return [finding.code for finding in page.findings]


# --------------------------------------------------------------------------------------- in training


class Labels(v2.Transform):
    """Changes labels alone, as a transform that was meant for photographs does."""

    def __init__(self, change):
        super().__init__()
        self.change, self.cut = change, v2.RandomCrop(32)

    def __call__(self, sample):
        sample = self.cut(sample)
        return sample._replace(vessels=self.change(sample.vessels))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v * 255, "lie in 0 to 255 instead of .0, 1.*: divide them by 255"),
        (lambda v: (v.float() - 0.45) / 0.22, "lie in -2.04.* no transform may normalise"),
        (lambda v: v.repeat(3, 1, 1), r"are \(2, 3, 32, 32\), not \(2, 1, 32, 32\): keep their one channel"),
        (lambda v: v[0], r"are \(2, 32, 32\), not \(2, 1, 32, 32\): keep their one channel"),
    ],
)
def test_labels_that_are_none_are_refused_in_the_first_step(eyes, change, words):
    spoiled = eyes.subset(eyes.names, Labels(change))
    with pytest.raises(DataError, match=f"the labels of step 1 .*{words}"):
        fit(network(), spoiled, steps=40, **SMALL)


def test_fields_of_view_without_a_channel_are_refused(eyes):
    """With as many patches as channels they would be spread over the wrong ones, without a word."""
    cut = v2.RandomCrop(32)
    flat = eyes.subset(eyes.names, lambda sample: (kept := cut(sample))._replace(fov=kept.fov[0]))
    with pytest.raises(DataError, match=r"the fields of view of step 1 are \(3, 32, 32\), not \(3, 1, "):
        fit(network(), flat, steps=40, **SMALL | {"batch_size": 3})


@pytest.mark.parametrize(("label", "words"), [(0, "background"), (1, "vessel")])
def test_labels_of_one_kind_are_told(label, words):
    everywhere = labelled(np.full(SIZE, label, bool))
    everywhere.transform = v2.CenterCrop(32)
    with pytest.warns(UserWarning, match=f"first 20 steps are {words} at every pixel.*check_data"):
        fit(network(), everywhere, steps=21, **SMALL)


def test_a_loss_that_is_no_number_names_its_layer_and_photographs(eyes):
    model = network()

    def spoils(module, inputs, output):
        return output * float("inf") if len(calls) > 4 else calls.append(1)

    calls = []
    model.bottleneck[3].register_forward_hook(spoils)
    with pytest.raises(FloatingPointError) as caught:
        fit(model, eyes, steps=9, **SMALL)
    words = str(caught.value)
    assert "first in the layer bottleneck.3 (Conv2d), with patches of" in words
    step = int(words.split("at step ")[1].split(",")[0])
    names = words.split("patches of ")[1].split(";")[0].split(" and ")
    order = eyes.order(18, 0)[2 * (step - 1) : 2 * step].tolist()
    assert names == [eyes.names[index] for index in dict.fromkeys(order)]


def test_spoiled_weights_are_named(eyes):
    model = network()
    with torch.no_grad():
        model.head.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="first in the weights head.weight, which an earlier step"):
        fit(model, eyes, steps=2, **SMALL)


def test_predictions_of_one_kind_are_told_with_causes(eyes):
    class Dead(SegmentationModel):
        def __init__(self):
            super().__init__(3, 1)
            self.bias = nn.Parameter(torch.tensor(-3.0))

        def network(self, x):
            return x[:, :1] * 0 + self.bias

    model = Dead()
    model.preprocessing = Preprocessing(tolerance=100)
    with pytest.warns(UserWarning, match="after 1.0 steps the network calls everything background") as caught:
        fit(model, eyes, steps=200, lr=1e-6, **SMALL | {"patch_size": 48})
    (warning,) = caught
    assert "in this order: 1. a learning rate that is too high, 1e-06" in str(warning.message)
    assert "diagnose(model, dataset)" in str(warning.message)


def test_a_learning_rate_that_diverges_is_told(eyes):
    steps = iter(range(1000))

    def loss(logits, vessels, fov):
        return bce_loss(logits, vessels, fov) * (1 if next(steps) < 25 else 30)

    with pytest.warns(UserWarning, match="the loss diverges: .* learning rate 0.01 is too high .* try 0.001"):
        fit(network(), eyes, steps=60, loss=loss, **SMALL)


def test_a_training_that_goes_well_is_not_commented(eyes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(network(), eyes, steps=110, **SMALL)


# ------------------------------------------------------------------------------------------- the page


def test_a_trained_network_is_healthy(learned, eyes):
    before = {name: value.clone() for name, value in learned.state_dict().items()}
    state = torch.get_rng_state()
    page = drive_unet.diagnose(learned, eyes)
    assert codes(page) == [] and page.healthy, page
    assert torch.equal(torch.get_rng_state(), state) and not learned.training
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())
    assert page.updates == 200 and page.sweep.shape == (2, 19) and page.sweep[1].max() > 0.7
    assert page.probabilities.sum(axis=1) == pytest.approx([1, 1])
    assert page.heart["after"] > 0.6 and page.heart["loss after"] < page.heart["loss before"]
    assert all(ratio > 0 for ratio in page.gradients.values()) and len(page.gradients) == 8
    text = str(page)
    for words in (
        "Nothing is wrong",
        "Labels: 0 ",
        "Probabilities",
        "Dice by threshold",
        "by heart",
        "by layer",
    ):
        assert words in text
    assert page._repr_html_().startswith("<pre>Nothing is wrong")


class Article(Dataset):
    """The article's dataset, mended so far that it runs: one transform for photograph and label alike."""

    def __init__(self, masks, normalise=True):
        steps = [v2.Resize((64, 64)), v2.ToDtype(torch.float32, scale=True)]
        steps += [v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])] if normalise else []
        self.transform, self.masks = v2.Compose(steps), masks

    def __len__(self):
        return 3

    def __getitem__(self, index):
        image, label, _, _ = decoded(index)
        label = torch.from_numpy(self.masks(index).astype(np.uint8)[None]) * 255
        return self.transform(image), self.transform(label)


def test_the_article_s_set_up_is_diagnosed():
    page = diagnose(network(ArticleNet), Article(lambda index: disc(SIZE)))
    assert codes(page)[:3] == ["label-is-fov", "label-channels", "label-values"]
    assert "field-of-view masks, not vessels" in str(page) and "1st_manual, not mask" in str(page)
    assert "-2.12 to 2.64" in str(page)
    assert page.sees == 8 and "sees-little" in codes(page)

    page = diagnose(network(ArticleNet), Article(lambda index: disc(SIZE), normalise=False), steps=2)
    assert codes(page)[0] == "label-is-fov"


def test_the_article_s_network_after_thirty_steps_is_diagnosed(eyes):
    model = network(ArticleNet)
    fit(model, eyes, steps=30, lr=1e-3, loss=bce_loss, **SMALL)
    page = diagnose(model, eyes, steps=5)
    assert page.updates == 30
    assert {"sees-little", "few-steps"} <= set(codes(page))
    assert codes(page)[0] in ("all-background", "sees-little", "few-steps", "unlearned")


def test_a_threshold_that_does_not_serve_is_told(learned, eyes):
    learned.threshold_single, kept = 0.999, learned.threshold_single
    try:
        assert codes(diagnose(learned, eyes, steps=0)) == ["threshold"]
    finally:
        learned.threshold_single = kept


def test_a_layer_without_gradient_is_named(eyes):
    model = network()
    with torch.no_grad():
        for block in (model.encoder[0], model.bottleneck):
            block[4].weight.zero_()
            block[4].bias.fill_(-1.0)
    page = diagnose(model, eyes, steps=0)
    (finding,) = [finding for finding in page.findings if finding.code == "no-gradient"]
    assert "bottleneck" in finding.what and "head" not in finding.what
    assert "all-background" in codes(page) or "all-vessel" in codes(page) or "unlearned" in codes(page)


@pytest.mark.parametrize(("value", "kind"), [(0, "0"), (1, "1")])
def test_constant_labels_are_told(value, kind):
    page = diagnose(network(), labelled(np.full(SIZE, value, bool)))
    assert "label-constant" in codes(page) and page.labels == {kind: 1.0}
    assert page.probabilities is None and not page.healthy


def test_what_is_no_dataset_is_refused(eyes):
    with pytest.raises(DataError, match="the dataset is empty"):
        diagnose(network(), [])
    with pytest.raises(DataError, match="items are dict, not"):
        diagnose(network(), [{"image": 1}])
    with pytest.raises(DataError, match="no vessel labels"):
        diagnose(network(), [(torch.zeros(3, 8, 8), None)])
    with pytest.raises(DataError, match="not \\(C, H, W\\) of one size"):
        diagnose(network(), [(torch.zeros(3, 8, 8), torch.zeros(1, 9, 9))])
    image, vessels = torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)
    with pytest.raises(DataError, match="the dataset is a NoneType: give a DRIVEDataset"):
        diagnose(network(), None)
    with pytest.raises(DataError, match=r"fov \(8, 8\) has not the form \(1, H, W\)"):
        diagnose(network(), [(image, vessels, vessels[0])])
    for empty in (image[:, :0], image * 1j):
        with pytest.raises(DataError, match="are complex or empty: give real numbers"):
            diagnose(network(), [(empty, vessels[:, : empty.shape[1]])])
    with pytest.raises(DataError, match="a network is needed, not 'default': UNet.from_pretrained"):
        diagnose("default", eyes)
    with pytest.raises(DataError, match=r"takes \(B, 3, H, W\).*: build it with in_channels=1"):
        diagnose(network(), [(image[:1], vessels)])


def test_layers_stay_in_their_modes(eyes):
    model = network().train()
    model.encoder[0].eval()
    diagnose(model, eyes, steps=0)
    assert model.training and model.bottleneck.training and not model.encoder[0].training


def test_numbers_that_are_not_finite_come_first(eyes):
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    page = diagnose(model, eyes, steps=2)
    assert [finding.code for finding in page.findings if finding.level == "error"] == ["not-finite"]
    assert "the weights encoder.0.0" in str(page) and "nan" not in str(page)
    spoiled = [(image * float("nan"), vessels) for image, vessels, *_ in eyes]
    assert "come from the photographs" in str(diagnose(network(), spoiled, steps=2))


def test_inverted_labels_are_no_field_of_view(eyes):
    inverted = [(image, 1 - vessels, fov) for image, vessels, fov, *_ in eyes]
    page = diagnose(network(), inverted, steps=0)
    assert "label-inverted" in codes(page) and "label-is-fov" not in codes(page)


def test_the_page_tells_its_own_steps_and_shares(eyes):
    assert "by heart, 3 steps" in str(diagnose(network(), eyes, steps=3))
    whole = [(image, torch.ones_like(vessels)) for image, vessels, *_ in eyes]
    assert "by photograph: 100.0%" in str(diagnose(network(), whole, steps=0))


class Held(nn.Module):
    """Keeps what cannot be copied: a tensor that was computed, as by a wrapper of weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
        self.doubled = self.layer.weight * 2

    def forward(self, x):
        return nn.functional.conv2d(x, self.doubled)


def test_a_network_that_cannot_be_copied_is_told(eyes):
    with pytest.raises(
        DataError, match=r"the network cannot be copied \(Only Tensors .*: keep nothing in it"
    ):
        diagnose(Held(), eyes, steps=2)


class Cut(nn.Module):
    """Lets no gradient through."""

    def forward(self, x):
        return x.detach()


def test_a_frozen_network_and_one_of_another_kind_are_told(eyes):
    frozen = network().requires_grad_(False)
    assert "frozen" in codes(diagnose(frozen, eyes, steps=2))
    with torch.no_grad():
        assert "no-gradient" not in codes(diagnose(network(), eyes, steps=2))
    for other, given in (
        (nn.Conv2d(3, 2, 1), "(1, 2, "),
        (nn.AvgPool2d(2), "(1, 3, "),
        (nn.Identity(), "(1, 3, "),
        (nn.LSTM(60, 4), "cannot take images"),
        (nn.Sequential(nn.Conv2d(3, 1, 1), Cut()), "have no gradient"),
    ):
        with pytest.raises(DataError, match=re.escape(given)):
            diagnose(other, eyes)
    blind = [(image, vessels, torch.zeros_like(vessels)) for image, vessels, *_ in eyes]
    with pytest.raises(DataError, match="the field of view is empty"):
        diagnose(network(), blind)
